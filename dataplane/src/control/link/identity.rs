//! [`Identity`]: the key and the certificate of this node, and where they are kept.
//!
//! One PEM file, so that key and certificate are always of each other: some lines
//! that say how it was got, then the key, the certificate, and the CA's.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::parse_x509_certificate,
};
use zeroize::Zeroizing;

use super::LinkError;
use crate::sealed;

/// The folder in the data directory, its file, and what becomes that file.
const FOLDER: &str = "identity";
const FILE: &str = "node.pem";
const ASIDE: &str = "node.pem.tmp";
/// What the subject alternative name of a node's certificate begins with.
const NODE_URI: &str = "mcp-fleet://node/";

/// Who this node is.
pub(crate) struct Identity {
    pub(super) node_id: String,
    pub(crate) certificate: CertificateDer<'static>,
    /// The authority that has signed it.
    pub(crate) ca: CertificateDer<'static>,
    key: KeyPair,
    /// When it came, and until when it is good: since 1970-01-01 UTC.
    pub(super) received: Duration,
    pub(super) expires: Duration,
    /// The authority was known by its hash only: nobody else's word counts.
    pub(super) pinned: bool,
    /// The join token it began with.
    pub(super) token_id: String,
}

/// How an identity was got.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) pinned: bool,
    pub(super) token_id: String,
}

impl Identity {
    /// Of what a control plane has given for a key.
    pub(super) fn new(
        key: KeyPair,
        certificate: Vec<u8>,
        ca: Vec<u8>,
        received: Duration,
        origin: Origin,
    ) -> Result<Self, String> {
        let (node_id, expires) = {
            let (_, parsed) = parse_x509_certificate(&certificate)
                .map_err(|e| format!("not a certificate: {e}"))?;
            if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
                return Err("the certificate is not of the key".to_owned());
            }
            let node_id = node_in(&parsed).ok_or("the certificate names no node")?;
            let expires = parsed.validity().not_after.timestamp();
            (node_id, Duration::from_secs(expires.max(0) as u64))
        };
        parse_x509_certificate(&ca).map_err(|e| format!("the CA is not a certificate: {e}"))?;
        Ok(Self {
            node_id,
            certificate: certificate.into(),
            ca: ca.into(),
            key,
            received,
            expires,
            pinned: origin.pinned,
            token_id: origin.token_id,
        })
    }

    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    pub(super) fn origin(&self) -> Origin {
        Origin {
            pinned: self.pinned,
            token_id: self.token_id.clone(),
        }
    }

    /// ECDSA P-256 with SHA-256 over these bytes.
    pub(super) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.key.sign(bytes).map_err(|e| e.to_string())
    }

    /// When it is to be renewed: at two thirds of its life, a little earlier or later
    /// so that a fleet does not do it as one.
    pub(super) fn due(&self) -> Duration {
        let life = self.expires.saturating_sub(self.received);
        // Of its own certificate, so that it stays the same.
        let jitter = f64::from(self.certificate.last().copied().unwrap_or(0)) / 255.0;
        self.received + life.mul_f64(0.6 + jitter * 0.1)
    }

    pub(super) fn has_expired(&self) -> bool {
        sealed::now() >= self.expires
    }

    /// As it is kept.
    fn text(&self) -> Zeroizing<String> {
        let pinned = if self.pinned { "yes" } else { "no" };
        let key = Zeroizing::new(self.key.serialize_der());
        Zeroizing::new(format!(
            "The key and the certificate of node {} of mcp-fleet.\nreceived: {}\npinned: {pinned}\n\
             join token: {}\n{}{}{}",
            self.node_id,
            self.received.as_millis(),
            self.token_id,
            *Zeroizing::new(pem("PRIVATE KEY", &key)),
            pem("CERTIFICATE", &self.certificate),
            pem("CERTIFICATE", &self.ca),
        ))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let received = line("received: ").and_then(|text| text.parse().ok());
        let received = Duration::from_millis(received.ok_or("it does not say when it came")?);
        let origin = Origin {
            pinned: line("pinned: ") != Some("no"),
            token_id: line("join token: ").unwrap_or_default().to_owned(),
        };
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|e| format!("there is no key in it: {e}"))?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|e| format!("the key in it cannot be used: {e}"))?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        match found.map_err(|e| e.to_string())?.as_slice() {
            [certificate, ca] => {
                Self::new(key, certificate.to_vec(), ca.to_vec(), received, origin)
            }
            others => Err(format!("it has {} certificates instead of 2", others.len())),
        }
    }
}

/// The node that a certificate is of, whoever has signed it.
pub(crate) fn node_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    node_in(&parsed)
}

fn node_in(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok().flatten()?;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(uri.strip_prefix(NODE_URI)),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(node_id), None) => node_id.map(str::to_owned),
        _ => None,
    }
}

/// A new key.
pub(super) fn key() -> Result<KeyPair, String> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| e.to_string())
}

/// A request (PKCS #10) for a certificate of this key.
pub(super) fn request(key: &KeyPair) -> Result<Vec<u8>, String> {
    let request = CertificateParams::default().serialize_request(key);
    Ok(request.map_err(|e| e.to_string())?.der().to_vec())
}

/// Where an identity is kept.
pub(super) struct Kept {
    folder: PathBuf,
}

impl Kept {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.join(FOLDER),
        }
    }

    /// The identity that is kept; `None`: there is none.
    pub(super) fn load(&self) -> Result<Option<Identity>, LinkError> {
        let path = self.folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(reason) => return Err(LinkError::File { path, reason }),
        };
        match Identity::parse(&text) {
            Ok(identity) => Ok(Some(identity)),
            Err(what) => {
                let reason = io::Error::new(io::ErrorKind::InvalidData, what);
                Err(LinkError::File { path, reason })
            }
        }
    }

    /// Keeps an identity: it is whole on disk when this returns, or the one before is.
    pub(super) fn save(&self, identity: &Identity) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let aside = self.folder.join(ASIDE);
        // Of a process that has died on the way.
        match fs::remove_file(&aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)?;
        file.write_all(identity.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, self.folder.join(FILE))?;
        File::open(&self.folder)?.sync_all()
    }
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
