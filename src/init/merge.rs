//! `allOf` merged into one schema: a gate that refuses unknown fields cannot judge an object in parts.

use serde_json::{Map, Value};

/// Takes the keywords of one branch in.
pub(super) fn into(out: &mut Map<String, Value>, part: Map<String, Value>) {
    for (key, value) in part {
        match (key.as_str(), out.get_mut(&key)) {
            // A closed branch would close the other branches out.
            ("additionalProperties" | "unevaluatedProperties", _) if value == Value::Bool(false) => {}
            (_, None) => {
                out.insert(key, value);
            }
            ("properties", Some(Value::Object(mine))) => properties(mine, value),
            ("required", Some(Value::Array(mine))) => union(mine, value),
            ("enum", Some(Value::Array(mine))) => common(mine, &value),
            ("anyOf" | "oneOf" | "not" | "if", Some(mine)) if *mine != value => besides(out, &key, value),
            _ => {}
        }
    }
}

fn properties(mine: &mut Map<String, Value>, theirs: Value) {
    let Value::Object(theirs) = theirs else { return };
    for (name, theirs) in theirs {
        match (mine.get_mut(&name), theirs) {
            (Some(Value::Object(mine)), Value::Object(theirs)) => into(mine, theirs),
            (Some(_), _) => {}
            (None, theirs) => {
                mine.insert(name, theirs);
            }
        }
    }
}

fn union(mine: &mut Vec<Value>, theirs: Value) {
    let Value::Array(theirs) = theirs else { return };
    for one in theirs {
        if !mine.contains(&one) {
            mine.push(one);
        }
    }
}

/// What both allow, unless that is nothing: then the document contradicts itself, and the first stands.
fn common(mine: &mut Vec<Value>, theirs: &Value) {
    let Some(theirs) = theirs.as_array() else { return };
    if mine.iter().any(|v| theirs.contains(v)) {
        mine.retain(|v| theirs.contains(v));
    }
}

fn besides(out: &mut Map<String, Value>, key: &str, value: Value) {
    let mut one = Map::new();
    one.insert(key.to_owned(), value);
    if let Value::Array(all) = out.entry("allOf").or_insert_with(|| Value::Array(Vec::new())) {
        all.push(Value::Object(one));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn branches_add_up() {
        let mut out = Map::new();
        for part in [
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false}),
            json!({"properties": {"a": {"maxLength": 3}, "b": {}}, "required": ["b", "a"], "anyOf": [{}]}),
            json!({"anyOf": [{"required": ["a"]}]}),
        ] {
            into(&mut out, part.as_object().unwrap().clone());
        }
        let expected = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}, "b": {}},
            "required": ["a", "b"], "anyOf": [{}], "allOf": [{"anyOf": [{"required": ["a"]}]}]});
        assert_eq!(Value::Object(out), expected);
    }
}
