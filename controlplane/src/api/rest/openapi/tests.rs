use std::collections::BTreeSet;

use super::*;

/// Every `$ref` of a document.
fn references(json: &Json, found: &mut BTreeSet<String>) {
    match json {
        Json::Object(object) => {
            if let Some(Json::String(to)) = object.get("$ref") {
                found.insert(to.clone());
            }
            object.values().for_each(|value| references(value, found));
        }
        Json::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_route_is_in_the_document_under_an_id_of_its_own() {
    let document = document();
    let mut ids = BTreeSet::new();
    let routes = routes::all();
    for route in &routes {
        let operation = &document["paths"][&route.path][route.method.as_str()];
        assert_eq!(operation["operationId"], route.id, "{}", route.path);
        assert!(ids.insert(&route.id), "{} is there twice", route.id);
        assert!(operation["responses"]["401"].is_object());
    }
    let listed = document["paths"].as_object().unwrap().values();
    let listed: usize = listed.map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(listed, routes.len() + 4, "and the four without a token");
}

#[test]
fn whatever_is_referred_to_is_there_and_described() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        let schema = document.pointer(pointer).unwrap_or(&Json::Null);
        assert!(schema["description"].is_string(), "{reference}: {schema}");
    }
    assert!(found.contains("#/components/schemas/HttpBackend"));
    let backend = &document["components"]["schemas"]["Backend"];
    assert_eq!(backend["oneOf"][0]["required"][0], "stdio");
    assert_eq!(backend["properties"]["timeout"]["type"], "string");
    let about = backend["properties"]["project"]["description"].as_str();
    assert!(about.unwrap().contains("owns the backend"), "{about:?}");
    let labels = &backend["properties"]["labels"]["additionalProperties"];
    assert_eq!(labels["type"], "string");
}
