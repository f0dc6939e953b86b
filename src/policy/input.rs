//! Which arguments of an operation a policy can see, and as what: from its JSON Schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::finding::{Finding, Severity};
use crate::call::Operation;

/// The declared members of an object.
pub type Record = BTreeMap<String, Member>;

/// One declared member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its type.
    pub ty: InputType,
    /// Every call has it.
    pub required: bool,
    /// For a set: `<name>_len` is declared beside it.
    pub has_len: bool,
    /// For a Long: the schema has a `minimum` and a `maximum`.
    pub bounded: bool,
}

/// The type that an argument has in policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputType {
    /// `string`.
    String,
    /// `integer`.
    Long,
    /// `number`, with at most four decimal places.
    Decimal,
    /// `boolean`.
    Bool,
    /// `object` with `properties`.
    Record(Record),
    /// `array`.
    Set(Box<Self>),
}

/// `$ref` and nesting are followed this far.
const DEPTH: usize = 12;
/// Members of one operation that policies can see, those of nested objects with them.
const MOST: usize = 1000;

/// The members of an operation's arguments that policies can see, and remarks about those they cannot.
#[must_use]
pub fn members(operation: &Operation) -> (Record, Vec<Finding>) {
    let root = operation.schema.as_deref();
    let mut reader = Reader { operation: &operation.name, root, findings: Vec::new(), left: MOST };
    let read = root.map(|root| reader.object(root, "", DEPTH));
    if read == Some(None) {
        reader.remark("policy-input", "its schema is of no object, so policies see nothing of its arguments");
    }
    let mut record = read.flatten().unwrap_or_default();
    if reader.left == 0 {
        let what =
            format_args!("it has more than {MOST} arguments, nested ones included; policies see the first of them");
        reader.remark("policy-input", what);
    }
    let declared = reader.root.and_then(|root| root.get("properties"));
    for name in &operation.path_params {
        if !record.contains_key(name) && declared.is_some_and(|d| d.get(name).is_some()) {
            continue;
        }
        let text = Member { ty: InputType::String, required: true, has_len: false, bounded: false };
        record.entry(name.clone()).or_insert(text).required = true;
    }
    (record, reader.findings)
}

struct Reader<'a> {
    operation: &'a str,
    root: Option<&'a Value>,
    findings: Vec<Finding>,
    /// Members that may still be read: a schema that refers to itself in several places would have no end.
    left: usize,
}

impl<'a> Reader<'a> {
    fn remark(&mut self, code: &'static str, what: impl std::fmt::Display) {
        let text = format!("{}: {what}", self.operation);
        self.findings.push(Finding::new(Severity::Warning, code, text));
    }

    /// Follows `$ref` to local definitions; `None` when it leads nowhere.
    fn resolve(&self, mut schema: &'a Value) -> Option<&'a Value> {
        for _ in 0..DEPTH {
            match schema.get("$ref").and_then(Value::as_str) {
                None => return Some(schema),
                Some(path) => schema = self.root?.pointer(path.strip_prefix('#')?)?,
            }
        }
        None
    }

    fn object(&mut self, schema: &'a Value, path: &str, depth: usize) -> Option<Record> {
        let schema = self.resolve(schema)?;
        let is_object = schema.get("type").is_none_or(|t| t == "object");
        let properties = schema.get("properties").and_then(Value::as_object);
        if !is_object || (properties.is_none() && !path.is_empty()) {
            return None;
        }
        let required: BTreeSet<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let mut record = Record::new();
        for (name, member) in properties.into_iter().flatten() {
            let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match self.typed(member, &here, depth) {
                Some(mut m) => {
                    m.required = required.contains(name.as_str());
                    record.insert(name.clone(), m);
                }
                None if self.left == 0 => {}
                None => self.remark(
                    "policy-input",
                    format_args!("'{here}' has no type that policies know; it is left out of context.input"),
                ),
            }
        }
        self.lengths(&mut record);
        Some(record)
    }

    /// Declares `<name>_len` beside each set, unless an argument has that name already.
    fn lengths(&mut self, record: &mut Record) {
        let names: BTreeSet<String> = record.keys().cloned().collect();
        for (name, member) in record.iter_mut().filter(|(_, m)| matches!(m.ty, InputType::Set(_))) {
            member.has_len = !names.contains(&format!("{name}_len"));
            if !member.has_len {
                let what = format!("'{name}_len' is an argument, so the length of '{name}' has no name");
                self.findings.push(Finding::new(
                    Severity::Warning,
                    "policy-input",
                    format!("{}: {what}", self.operation),
                ));
            }
        }
    }

    fn typed(&mut self, schema: &'a Value, path: &str, depth: usize) -> Option<Member> {
        let depth = depth.checked_sub(1)?;
        self.left = self.left.checked_sub(1)?;
        let schema = self.resolve(schema)?;
        let ty = match schema.get("type")?.as_str()? {
            "string" => InputType::String,
            "integer" => InputType::Long,
            "boolean" => InputType::Bool,
            "number" => {
                self.remark(
                    "policy-number",
                    format_args!("'{path}' is a JSON number; it becomes a decimal in policies"),
                );
                InputType::Decimal
            }
            "object" => InputType::Record(self.object(schema, path, depth)?),
            "array" if schema.get("prefixItems").is_none() => {
                InputType::Set(Box::new(self.typed(schema.get("items")?, path, depth)?.ty))
            }
            _ => return None,
        };
        let has = |a: &str, b: &str| schema.get(a).is_some() || schema.get(b).is_some();
        let bounded = has("maximum", "exclusiveMaximum") && has("minimum", "exclusiveMinimum");
        Some(Member { ty, required: false, has_len: false, bounded })
    }
}
