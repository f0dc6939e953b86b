//! Parameters of path and query: each is one text on the wire, read by the type that its schema says.

use serde_json::{Map, Value, json};

use super::convert::Converter;
use super::document::Document;

/// A declared parameter, references followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter<'d> {
    pub(super) name: &'d str,
    pub(super) place: &'d str,
    given: &'d Value,
}

/// Those of the path item, overridden by those of the operation.
pub(super) fn all<'d>(document: &'d Document, item: &'d Value, operation: &'d Value) -> Vec<Parameter<'d>> {
    let listed = |node: &'d Value| node.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let mut all: Vec<Parameter<'d>> = Vec::new();
    for given in listed(item).chain(listed(operation)).filter_map(|p| document.follow(p)) {
        let text = |key: &str| given.get(key).and_then(Value::as_str);
        let (Some(name), Some(place)) = (text("name"), text("in")) else { continue };
        all.retain(|p| (p.name, p.place) != (name, place));
        all.push(Parameter { name, place, given });
    }
    all
}

/// An argument of the operation.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) name: String,
    pub(super) schema: Value,
    pub(super) required: bool,
}

impl<'d> Parameter<'d> {
    /// Whether every call has it.
    pub(super) fn required(&self) -> bool {
        self.given.get("required").and_then(Value::as_bool) == Some(true)
    }

    /// What the parameter is among the arguments: one, or one for each member of an object.
    pub(super) fn arguments(&self, document: &'d Document, converter: &mut Converter<'d>) -> Vec<Argument> {
        let given = self.given.get("schema").and_then(|s| document.follow(s)).unwrap_or(&Value::Null);
        let style = self.given.get("style").and_then(Value::as_str).unwrap_or("form");
        let explode =
            self.given.get("explode").and_then(Value::as_bool).unwrap_or(style == "form" || style == "deepObject");
        let members = given.get("properties").and_then(Value::as_object);
        if self.place != "query" || !explode || !matches!(style, "form" | "deepObject") {
            return vec![self.one(self.name.to_owned(), given, converter)];
        }
        match members {
            Some(members) => members
                .iter()
                .filter_map(|(name, member)| Some((name, document.follow(member)?)))
                .map(|(name, member)| {
                    let name = if style == "deepObject" { format!("{}[{name}]", self.name) } else { name.clone() };
                    Argument { required: false, ..self.one(name, member, converter) }
                })
                .collect(),
            None => vec![self.one(self.name.to_owned(), given, converter)],
        }
    }

    fn one(&self, name: String, given: &'d Value, converter: &mut Converter<'d>) -> Argument {
        let converted = converter.schema(given, true);
        // Definitions that only a parameter refers to are not kept: its text is of one type.
        let schema = plain(&converted);
        if schema.is_none() {
            let lists = converted.get("type").is_some_and(|t| t == "array");
            converter.remarks.insert(if lists { LIST } else { UNCLEAR });
        }
        Argument { name, schema: schema.unwrap_or_else(|| json!({"type": "string"})), required: self.required() }
    }
}

const LIST: &str = "a list in path or query is one text, since a name may stand only once";
const UNCLEAR: &str = "a parameter of several types is one text";

/// The schema of one text; `None` when its type is not a single one.
fn plain(schema: &Value) -> Option<Value> {
    let members = schema.as_object()?;
    let ty = match members.get("type")? {
        Value::String(one) => one.clone(),
        Value::Array(all) => match all.iter().filter(|t| *t != "null").collect::<Vec<_>>().as_slice() {
            [Value::String(one)] => one.clone(),
            _ => return None,
        },
        _ => return None,
    };
    let fits = |v: &Value| match ty.as_str() {
        "string" => v.is_string(),
        "integer" => v.is_i64() || v.is_u64(),
        "number" => v.is_number(),
        _ => v.is_boolean(),
    };
    if !["string", "integer", "number", "boolean"].contains(&ty.as_str()) {
        return None;
    }
    let mut out: Map<String, Value> = members
        .iter()
        .filter(|(key, _)| !["anyOf", "oneOf", "allOf", "not", "enum", "$ref"].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let allowed: Vec<Value> =
        members.get("enum").and_then(Value::as_array).into_iter().flatten().filter(|v| fits(v)).cloned().collect();
    if !allowed.is_empty() {
        out.insert("enum".into(), allowed.into());
    }
    out.insert("type".into(), ty.into());
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: Value) -> Vec<(String, Value)> {
        let document = json!({"openapi": "3.0.0", "i": {"parameters": parameters}, "c": {"p": {"name": "r", "in": "query",
            "schema": {"$ref": "#/c/s"}}, "s": {"type": "integer", "maximum": 9}}});
        let document = Document::read(&document.to_string()).unwrap();
        let item = document.root().get("i").unwrap();
        let mut converter = Converter::new(&document, 9);
        let found = all(&document, item, &Value::Null);
        let arguments = found.iter().flat_map(|p| p.arguments(&document, &mut converter));
        arguments.map(|a| (a.name, a.schema)).collect()
    }

    #[test]
    fn what_stands_in_a_query_is_one_text_each() {
        let filter = json!({"type": "object", "properties": {"age": {"type": "integer"}, "tags": {"type": "array"}}});
        let found = read(json!([
            {"$ref": "#/c/p"},
            {"name": "ids", "in": "query", "schema": {"type": "array", "items": {"type": "integer"}}},
            {"name": "filter", "in": "query", "style": "deepObject", "schema": filter},
            {"name": "page", "in": "query", "schema": filter},
            {"name": "sort[by]", "in": "query", "schema": {"type": "string", "nullable": true, "enum": ["a", 1]}},
            {"name": "either", "in": "query", "schema": {"oneOf": [{"type": "integer"}, {"type": "string"}]}},
            {"name": "q", "in": "query", "content": {"application/json": {}}},
        ]));
        let text = json!({"type": "string"});
        let expected = [
            ("r", json!({"type": "integer", "maximum": 9})),
            ("ids", text.clone()),
            ("filter[age]", json!({"type": "integer"})),
            ("filter[tags]", text.clone()),
            ("age", json!({"type": "integer"})),
            ("tags", text.clone()),
            ("sort[by]", json!({"type": "string", "enum": ["a"]})),
            ("either", text.clone()),
            ("q", text),
        ];
        let expected: Vec<_> = expected.into_iter().map(|(n, s)| (n.to_owned(), s)).collect();
        assert_eq!(found, expected);
    }
}
