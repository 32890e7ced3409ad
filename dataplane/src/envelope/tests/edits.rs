//! Facts about splicing and walking.

use super::super::*;

#[test]
fn members_go_into_objects_of_any_kind() {
    let insert = |src: &str, members: &[&str]| {
        let span = Span::new(0, src.len());
        let mut edits: Vec<_> = members
            .iter()
            .map(|m| insert_member(src.as_bytes(), span, m.as_bytes()))
            .collect();
        splice(src.as_bytes(), &mut edits).map(|out| String::from_utf8(out.into()).unwrap())
    };
    let (a, b) = (r#""a":1"#, r#""b":2"#);
    assert_eq!(insert("{}", &[a]).unwrap(), r#"{"a":1}"#);
    assert_eq!(insert("{ }", &[a, b]).unwrap(), r#"{"a":1,"b":2 }"#);
    assert_eq!(
        insert(r#"{ "c":3}"#, &[a, b]).unwrap(),
        r#"{"a":1,"b":2, "c":3}"#
    );
    assert_eq!(insert("null", &[a]).unwrap(), r#"{"a":1}"#);
    assert_eq!(insert("null", &[a, b]).unwrap(), r#"{"a":1,"b":2}"#);
    assert_eq!(
        insert(r#""s""#, &[a]),
        Err(SpliceError::NotObject { at: 0 })
    );
}

#[test]
fn edits_that_do_not_fit_are_refused() {
    let edit = |start, end| Edit::replace(Span { start, end }, b"x");
    assert_eq!(
        &splice(b"abcdef", &mut [edit(4, 6), edit(0, 0), edit(1, 4)]).unwrap()[..],
        b"xaxx"
    );
    assert_eq!(
        splice(b"abcdef", &mut [edit(0, 3), edit(2, 4)]),
        Err(SpliceError::Overlap { at: 2 })
    );
    assert_eq!(
        splice(b"abc", &mut [edit(1, 4)]),
        Err(SpliceError::Outside { end: 4, len: 3 })
    );
    assert!(splice(b"abc", &mut [edit(2, 1)]).is_err());
}

#[test]
fn lists_are_read_item_by_item() {
    let src = br#"{"tools":[{"name":"a"},{"n\u0061me":"b","v":1.10}],"x":[]}"#;
    let (_, tools) = members(src, Span::new(0, src.len()))
        .next()
        .unwrap()
        .unwrap();
    let names: Vec<_> = elements(src, tools)
        .flat_map(|tool| members(src, tool.unwrap()))
        .map(Result::unwrap)
        .filter(|(key, _)| key == "name")
        .map(|(_, value)| string_value(src, value).unwrap())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let whole = |src: &'static [u8]| Span::new(0, src.len());
    assert_eq!(
        elements(b"{}", whole(b"{}")).next(),
        Some(Err(ScanError::NotArray))
    );
    assert_eq!(members(b"null", whole(b"null")).count(), 0);
    let broken: Vec<_> = elements(b"[1 2]", whole(b"[1 2]")).collect();
    assert!(matches!(
        broken[..],
        [Ok(_), Err(ScanError::NotJson { at: 3, .. })]
    ));
}

#[test]
fn a_member_goes_with_one_comma() {
    let without_b = |src: &str| {
        let whole = Span::new(0, src.len());
        let found = members(src.as_bytes(), whole).map(Result::unwrap);
        let (_, value) = found
            .filter(|(key, _)| key.starts_with('b'))
            .last()
            .unwrap();
        let edit = remove_member(src.as_bytes(), value).unwrap();
        let out = splice(src.as_bytes(), &mut [edit]).unwrap();
        String::from_utf8(out.into()).unwrap()
    };
    for (src, out) in [
        (r#"{"b":1}"#, "{}"),
        (r#"{ "b" : "x" }"#, "{  }"),
        (r#"{"b":[{}],"a":1}"#, r#"{"a":1}"#),
        (r#"{ "b":1 , "a":1}"#, r#"{  "a":1}"#),
        (r#"{"a":1,"b":{"a":1}}"#, r#"{"a":1}"#),
        (
            r#"{"a":"}\"," , "\u0062" : null , "c":2}"#,
            r#"{"a":"}\","  , "c":2}"#,
        ),
        (r#"{"a":1,"b\",\"":2,"c":2}"#, r#"{"a":1,"c":2}"#),
        (r#"{"b\\":2,"c":2}"#, r#"{"c":2}"#),
    ] {
        assert_eq!(without_b(src), out, "{src}");
    }
    assert!(remove_member(b"1", Span::new(0, 1)).is_none());
}
