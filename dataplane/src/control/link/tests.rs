use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, string::Ia5String,
};

use super::{
    enrol::JoinToken,
    identity::{Identity, Kept, Origin, key},
    *,
};
use crate::sealed;

fn settings(url: &str, credentials: Credentials, data_dir: Option<&Path>) -> Settings {
    Settings {
        source: Source::ControlPlane {
            urls: vec![url.to_owned()],
            credentials,
        },
        node_id: "n1".to_owned(),
        data_dir: data_dir.map(Path::to_owned),
        ..Settings::default()
    }
}

fn joining() -> Credentials {
    Credentials {
        join_token: Some(Secret::Text("mfj1.a.b".to_owned())),
        ..Credentials::default()
    }
}

fn refused(settings: &Settings) -> String {
    let link = Link::new(settings);
    link.err().expect("a way was found").to_string()
}

/// What a control plane would give to this node.
fn identity(node_id: &str) -> Identity {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = key().unwrap();
    let mut params = CertificateParams::default();
    let uri = Ia5String::try_from(format!("mcp-fleet://node/{node_id}")).unwrap();
    params.subject_alt_names = vec![SanType::URI(uri)];
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let origin = Origin {
        pinned: true,
        token_id: "a".to_owned(),
    };
    let (certificate, ca) = (certificate.der().to_vec(), ca_certificate.der().to_vec());
    Identity::new(key, certificate, ca, sealed::now(), origin).unwrap()
}

#[test]
fn an_address_is_encrypted_local_or_said_to_be_neither() {
    let with = |url: &str, insecure| Settings {
        insecure,
        ..settings(url, Credentials::node_token("t"), None)
    };
    for url in [
        "https://192.0.2.1:1",
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "http://localhost",
    ] {
        assert!(Link::new(&with(url, false)).is_ok(), "{url}");
    }
    let far = "http://127.0.0.1.example.com:1";
    assert!(refused(&with(far, false)).contains("--insecure"));
    assert!(Link::new(&with(far, true)).is_ok());
    for url in ["127.0.0.1:8182", "ftp://a", "https://", ""] {
        assert!(refused(&with(url, true)).contains("https://"), "{url}");
    }
}

#[test]
fn a_node_needs_something_to_show_and_a_place_to_keep_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = "https://127.0.0.1:1";
    let nothing = refused(&settings(url, Credentials::default(), Some(dir.path())));
    assert!(nothing.contains("join-token"), "{nothing}");
    assert!(refused(&settings(url, joining(), None)).contains("--data-dir"));
    let plain = settings("http://127.0.0.1:1", joining(), Some(dir.path()));
    assert!(refused(&plain).contains("over TLS only"));
    let given = Credentials {
        ca: Some(dir.path().join("none.pem")),
        ..joining()
    };
    let no_ca = refused(&settings(url, given, Some(dir.path())));
    assert!(no_ca.contains("none.pem"), "{no_ca}");
    assert!(Link::new(&settings(url, joining(), Some(dir.path()))).is_ok());
}

#[test]
fn an_empty_join_token_file_is_none_where_there_is_a_node_token() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("join.token");
    fs::write(&file, "\n").unwrap();
    let credentials = Credentials {
        join_token: Some(Secret::File(file)),
        ..Credentials::node_token("t")
    };
    let settings = settings("http://127.0.0.1:1", credentials, None);
    assert!(Link::new(&settings).is_ok());
}

#[test]
fn join_tokens_are_read_whole_or_not_at_all() {
    let pin = "A".repeat(43);
    let token = JoinToken::parse(&format!("mfj1.id.secret.{pin}"))
        .ok()
        .unwrap();
    assert_eq!(token.pin, Some([0; 32]));
    assert_eq!(JoinToken::parse("mfj1.id.secret").ok().unwrap().pin, None);
    for wrong in [
        "",
        "id.secret",
        "mfj1.id",
        "mfj1.id.secret.",
        "mfj1.id.secret.short",
        "mfj1.id.secret.pin.more",
    ] {
        assert!(JoinToken::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_kept_identity_is_private_and_reads_back_and_a_damaged_one_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::new(dir.path());
    assert!(kept.load().unwrap().is_none());
    let before = identity("n1");
    kept.save(&before).unwrap();
    let file = dir.path().join("identity/node.pem");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let after = kept.load().unwrap().unwrap();
    assert_eq!(
        (&after.certificate, &after.ca),
        (&before.certificate, &before.ca)
    );
    assert_eq!(
        (
            after.node_id.as_str(),
            after.pinned,
            after.token_id.as_str()
        ),
        ("n1", true, "a")
    );
    assert!(after.received.abs_diff(before.received) < Duration::from_millis(1));
    after.sign(b"x").unwrap();
    // With it nothing else is needed; not for another node, and not damaged.
    let url = "https://127.0.0.1:1";
    let alone = settings(url, Credentials::default(), Some(dir.path()));
    assert!(Link::new(&alone).is_ok());
    let other = Settings {
        node_id: "n2".to_owned(),
        ..alone.clone()
    };
    refused(&other);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    kept.load().err().unwrap();
    refused(&alone);
    let joining = settings(url, joining(), Some(dir.path()));
    assert!(Link::new(&joining).is_ok(), "it joins again");
}

#[test]
fn a_certificate_of_another_key_is_not_taken() {
    let theirs = identity("n1");
    let taken = Identity::new(
        key().unwrap(),
        theirs.certificate.to_vec(),
        theirs.ca.to_vec(),
        theirs.received,
        theirs.origin(),
    );
    assert!(taken.err().unwrap().contains("not of the key"));
}

#[test]
fn a_certificate_is_renewed_in_the_middle_of_its_last_half() {
    let identity = identity("n1");
    let life = identity.expires - identity.received;
    let due = identity.due() - identity.received;
    assert!(
        due >= life.mul_f64(0.59) && due <= life.mul_f64(0.71),
        "{due:?} of {life:?}"
    );
}

#[test]
fn secrets_are_shown_nowhere() {
    let shown = format!("{:?}", settings("https://a", joining(), None));
    assert!(!shown.contains("mfj1"), "{shown}");
}
