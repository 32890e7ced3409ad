//! Notation: what YAML and JSON allow and what of it is taken.

use super::*;

#[test]
fn byte_order_mark_and_crlf_change_nothing() {
    let windows = format!("\u{feff}{}", EXAMPLE.replace('\n', "\r\n"));
    assert_eq!(read(&windows).resources(), read(EXAMPLE).resources());
    assert_wrong(
        "\u{feff}kind: Backend\r\nname: a\r\nhttp: {}\r\n",
        &[("3:1", "http.url: is missing")],
    );
}

#[test]
fn aliases_are_followed_but_do_not_explode() {
    let documents = read(
        "kind: Backend\nname: a\nlabels: &l {team: core}\nhttp: {url: http://h/}\n---\nkind: Gateway\nname: g\npath: /mcp\n",
    );
    assert!(documents.problems.is_empty());
    let text = "kind: Gateway\nname: g\npath: /mcp\nlabels: &l {team: core}\nbackend_labels: *l\n";
    let Some(resource::Kind::Gateway(gateway)) = read(text).resources()[0].kind.clone() else {
        panic!()
    };
    assert_eq!(gateway.backend_labels["team"], "core");
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(
        wrong(&bomb)
            .iter()
            .any(|line| line.contains("expand to more than 4 MiB"))
    );
    assert!(wrong("a: &a [*a]\n")[0].contains("contains it"));
    assert!(wrong("a: *b\n")[0].contains("is not YAML"));
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    assert!(wrong(&deep)[0].contains("nested more than 32 levels"));
    assert!(wrong(&"[".repeat(100_000))[0].contains("is not YAML"));
}

#[test]
fn json_escapes_of_two_units_are_one_character() {
    let text = r#"{"kind": "Backend", "name": "a", "stdio": {"command": "\ud83d\ude00\\ud83d\ude00 \u00e9\/"}}"#;
    let documents = read(text);
    let lone = lines(&documents.problems);
    assert!(
        lone[0].contains("is not YAML"),
        "a lone half is refused: {lone:?}"
    );
    let documents = read(&text.replace(r"\\ud83d\ude00", r"\\ud83d"));
    let Some(Transport::Stdio(stdio)) = &backend(&documents, 0).transport else {
        panic!()
    };
    assert_eq!(stdio.command, "\u{1F600}\\ud83d \u{e9}/");
}

#[test]
fn any_json_keeps_its_source_text() {
    let (trees, stopped) =
        yaml::trees("{a: 1.10, b: [true, ~, 'x\"', 0x1f, -0, 1e400, 007], c: {\"1\": yes}}");
    assert!(stopped.is_none());
    let text = scalar::json(trees[0].root.as_ref().unwrap());
    assert_eq!(
        text,
        r#"{"a":1.10,"b":[true,null,"x\"","0x1f",-0,1e400,"007"],"c":{"1":"yes"}}"#
    );
    crate::json::Json::new(text).unwrap();
}

#[test]
fn other_types_of_fields_are_read_as_well() {
    let (trees, _) = yaml::trees(
        "{action: created}\n---\n{action: creatd}\n---\n{number: 18446744073709551615, root_hash: 0aff, created: '3', creatd: 1}\n---\n{created: 4294967296}",
    );
    let build = |message: &str, number: usize| {
        let Some(Node {
            data: Data::Map(entries),
            ..
        }) = &trees[number].root
        else {
            panic!()
        };
        let mut builder = Builder::default();
        let built = builder.message("", &descriptor::message(message), entries, &[]);
        (
            built,
            builder
                .bad
                .into_iter()
                .map(|bad| bad.message)
                .collect::<Vec<_>>(),
        )
    };
    let (change, bad) = build("Change", 0);
    assert!(bad.is_empty());
    assert_eq!(
        change.transcode_to::<crate::v1::Change>().unwrap().action(),
        crate::v1::Action::Created
    );
    assert_eq!(
        build("Change", 1).1,
        ["\"creatd\" is not a known value: did you mean `created`?"]
    );
    let (revision, bad) = build("Revision", 2);
    let revision = revision.transcode_to::<crate::v1::Revision>().unwrap();
    assert_eq!(
        (revision.number, revision.root_hash.as_slice()),
        (u64::MAX, &[0x0a, 0xff][..])
    );
    assert_eq!(
        bad[0],
        "\"3\" must be a whole number from 0 to 4294967295, without quotes"
    );
    assert!(
        bad[1].starts_with("unknown field `creatd`: did you mean `created`?"),
        "{bad:?}"
    );
    assert_eq!(build("Revision", 3).1.len(), 1);
}
