//! `docs/configuration.md` is made from the comments of `config.proto`. This test
//! fails when it is not up to date; with `UPDATE_DOCS=1` it writes it.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::Path};

use fleet_proto::{
    DESCRIPTORS,
    key::Kind,
    read::{Documents, read_yaml},
};
use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::Label, field_descriptor_proto::Type,
};

const HEAD: &str = include_str!("configuration_head.md");

/// Messages that files do not hold.
const OF_THE_API: [&str; 2] = ["Resource", "ResourceKey"];

/// Comments of a file by the path of what they are about (descriptor.proto, SourceCodeInfo).
type Comments = BTreeMap<Vec<i32>, String>;

fn config() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    set.file
        .into_iter()
        .find(|file| file.name() == "fleet/v1/config.proto")
        .unwrap()
}

fn comments(file: &FileDescriptorProto) -> Comments {
    let locations = &file.source_code_info.as_ref().unwrap().location;
    locations
        .iter()
        .filter_map(|location| {
            let words: Vec<_> = location
                .leading_comments
                .as_deref()?
                .split_whitespace()
                .collect();
            Some((location.path.clone(), words.join(" ")))
        })
        .collect()
}

fn page() -> String {
    let file = config();
    let comments = comments(&file);
    let mut page = HEAD.to_owned();
    for (number, message) in (0..).zip(&file.message_type) {
        if !OF_THE_API.contains(&message.name()) {
            section(&mut page, number, message, &comments);
        }
    }
    page
}

fn section(page: &mut String, number: i32, message: &DescriptorProto, comments: &Comments) {
    let comment = |path: &[i32]| {
        comments
            .get(&[&[4, number], path].concat())
            .cloned()
            .unwrap_or_default()
    };
    writeln!(page, "\n## {}\n\n{}\n", message.name(), comment(&[])).unwrap();
    if Kind::parse(message.name()).is_some() {
        writeln!(page, "A document with `kind: {}`.\n", message.name()).unwrap();
    }
    for (index, oneof) in (0..).zip(&message.oneof_decl) {
        let members = message
            .field
            .iter()
            .filter(|field| field.oneof_index == Some(index));
        let members: Vec<_> = members.map(|field| format!("`{}`", field.name())).collect();
        assert!(
            !oneof.name().starts_with('_'),
            "`optional` needs a line of its own"
        );
        writeln!(page, "{}: {}\n", members.join(" or "), comment(&[8, index])).unwrap();
    }
    writeln!(page, "| field | type | meaning |\n|---|---|---|").unwrap();
    for (index, field) in (0..).zip(&message.field) {
        let meaning = comment(&[2, index]);
        assert!(
            !meaning.is_empty(),
            "{}.{} has no comment",
            message.name(),
            field.name()
        );
        let meaning = meaning.replace('|', "\\|");
        writeln!(
            page,
            "| `{}` | {} | {meaning} |",
            field.name(),
            type_of(field, message)
        )
        .unwrap();
    }
}

fn type_of(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let short = field.type_name().rsplit('.').next().unwrap_or_default();
    let is_map = message
        .nested_type
        .iter()
        .any(|nested| nested.name() == short);
    let one = match field.r#type() {
        Type::String => "text".to_owned(),
        Type::Bool => "`true` or `false`".to_owned(),
        Type::Double | Type::Float => "number".to_owned(),
        Type::Message if is_map => return "mapping of texts".to_owned(),
        Type::Message if short == "Duration" => "duration".to_owned(),
        Type::Message if short == "Json" => "any value".to_owned(),
        Type::Message => format!("[{short}](#{})", short.to_lowercase()),
        Type::Enum => "one of a few words".to_owned(),
        _ => "whole number".to_owned(),
    };
    if field.label() == Label::Repeated {
        format!("list of {one}s")
    } else {
        one
    }
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = page();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let kept = fs::read_to_string(&path)
        .unwrap_or_default()
        .replace("\r\n", "\n");
    assert!(
        kept == page,
        "docs/configuration.md is not what the .proto files say: run UPDATE_DOCS=1 cargo test -p fleet-proto"
    );
}

#[test]
fn the_example_in_the_reference_is_valid() {
    let example = HEAD
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let mut documents = Documents::default();
    read_yaml("configuration.md", example, &mut documents);
    let (_, valid) = documents.check().unwrap();
    assert_eq!(valid.len(), 4);
}
