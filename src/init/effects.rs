//! What an operation does to the world, guessed from its method, its name and its arguments.

use serde_json::Value;

use super::naming::snake;

/// A guessed effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guess {
    /// Changes nothing.
    Read,
    /// Changes something that can be changed back.
    Write,
    /// Cannot be taken back.
    Irreversible,
    /// Moves money.
    Money,
}

impl Guess {
    /// All of them, the harmless first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Irreversible, Self::Money];

    /// The word of the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Irreversible => "irreversible",
            Self::Money => "money",
        }
    }

    /// Whether a person must look before.
    #[must_use]
    pub const fn needs_person(self) -> bool {
        matches!(self, Self::Irreversible | Self::Money)
    }
}

/// A guess, where its money stands, and what makes it uncertain.
pub(super) type Guessed = (Guess, Option<(String, String)>, Option<&'static str>);

const READS: [&str; 14] = [
    "count", "describe", "fetch", "find", "get", "has", "is", "list", "lookup", "query", "read", "search", "show",
    "view",
];
const FINAL: [&str; 9] = ["delete", "destroy", "drop", "erase", "kill", "purge", "remove", "truncate", "wipe"];

/// An operation of a REST tool. `form`: the schema of a body that policies see as one text.
pub(super) fn rest(method: &str, name: &str, schema: Option<&Value>, form: Option<&Value>) -> Guessed {
    match method {
        "GET" | "HEAD" => (Guess::Read, None, None),
        "DELETE" => (Guess::Irreversible, None, None),
        _ if is_final(name) => (Guess::Irreversible, None, Some("by its name")),
        "POST" if form.is_some_and(|f| money(f, f).is_some()) => {
            (Guess::Irreversible, None, Some("it seems to move money, by a form that policies cannot read"))
        }
        "POST" => writing(schema),
        _ => (Guess::Write, None, None),
    }
}

/// A tool of an MCP server. Its annotations may be wrong or lie: good enough for a draft, and never against its name.
pub(super) fn mcp(name: &str, definition: &Value) -> Guessed {
    let hint = |key: &str| definition.pointer(&format!("/annotations/{key}")).and_then(Value::as_bool) == Some(true);
    let name = snake(name);
    let first = name.split('_').next().unwrap_or_default();
    if is_final(&name) {
        return (Guess::Irreversible, None, Some("by its name"));
    }
    if hint("readOnlyHint") {
        return (Guess::Read, None, Some("readOnlyHint"));
    }
    if hint("destructiveHint") {
        return (Guess::Irreversible, None, Some("destructiveHint"));
    }
    if READS.contains(&first) {
        return (Guess::Read, None, Some("by its name"));
    }
    writing(definition.get("inputSchema"))
}

fn is_final(name: &str) -> bool {
    name.split('_').any(|word| FINAL.contains(&word))
}

fn writing(schema: Option<&Value>) -> Guessed {
    let Some(schema) = schema else { return (Guess::Write, None, None) };
    match money(schema, schema) {
        Some(Found::Minor(amount, currency)) => (Guess::Money, Some((amount, currency)), None),
        Some(Found::Unclear) => {
            let why = "it seems to move money, but not by required arguments with an integer in minor units";
            (Guess::Irreversible, None, Some(why))
        }
        None => (Guess::Write, None, None),
    }
}

enum Found {
    /// JSON Pointers to an integer and its currency.
    Minor(String, String),
    /// An amount that a budget cannot read.
    Unclear,
}

/// Amount and currency side by side, at the top or in one member.
fn money(schema: &Value, root: &Value) -> Option<Found> {
    if let Some(found) = beside(schema, "", true, false) {
        return Some(found);
    }
    let members = schema.get("properties")?.as_object()?;
    members.iter().find_map(|(name, member)| {
        let inner = resolved(member, root)?;
        beside(inner, &format!("/{}", escaped(name)), is_required(schema, name), is_amount(name))
    })
}

/// `within`: the object's own name speaks of money, so `value` will do.
fn beside(schema: &Value, at: &str, required: bool, within: bool) -> Option<Found> {
    let members = schema.get("properties")?.as_object()?;
    let currency = members.keys().find(|n| n.to_lowercase().contains("currency"))?;
    let amount = members.keys().find(|n| is_amount(n) || (within && n.to_lowercase() == "value"))?;
    let is = |name: &str, ty: &str| members.get(name).and_then(|m| m.get("type")).is_some_and(|t| t == ty);
    let sure = required && is_required(schema, amount) && is_required(schema, currency);
    Some(if sure && is(amount, "integer") && is(currency, "string") {
        Found::Minor(format!("{at}/{}", escaped(amount)), format!("{at}/{}", escaped(currency)))
    } else {
        Found::Unclear
    })
}

fn is_amount(name: &str) -> bool {
    let name = name.to_lowercase();
    ["amount", "cents", "price", "payment"].iter().any(|w| name.contains(w)) || name.ends_with("minor")
}

fn is_required(schema: &Value, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|all| all.iter().any(|r| r == name))
}

fn resolved<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a Value> {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(path) => root.pointer(path.strip_prefix('#')?),
        None => Some(schema),
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(properties: Value, required: &[&str]) -> Value {
        json!({"type": "object", "properties": properties, "required": required})
    }

    #[test]
    fn money_is_an_integer_beside_a_currency() {
        let text = || json!({"type": "string"});
        let plain =
            object(json!({"amountMinor": {"type": "integer"}, "currency": text()}), &["amountMinor", "currency"]);
        let found = rest("POST", "refund", Some(&plain), None);
        assert_eq!(found, (Guess::Money, Some(("/amountMinor".into(), "/currency".into())), None));
        let inner = object(json!({"value": {"type": "integer"}, "currency": text()}), &["value", "currency"]);
        let nested = object(json!({"amount": inner}), &["amount"]);
        assert_eq!(
            rest("POST", "pay", Some(&nested), None).1,
            Some(("/amount/value".into(), "/amount/currency".into()))
        );
        let optional = object(json!({"amount": {"type": "integer"}, "currency": text()}), &["currency"]);
        assert_eq!(rest("POST", "pay", Some(&optional), None).0, Guess::Irreversible);
        let decimal = object(json!({"amount": {"type": "number"}, "currency": text()}), &["amount", "currency"]);
        assert_eq!(rest("POST", "pay", Some(&decimal), None).0, Guess::Irreversible);
        assert_eq!(rest("PATCH", "set_price", Some(&plain), None).0, Guess::Write);
        assert_eq!(rest("POST", "pay", None, Some(&plain)).0, Guess::Irreversible);
    }

    #[test]
    fn names_and_hints_of_mcp_tools() {
        for (name, annotations, expected) in [
            ("get_ticket", json!({}), Guess::Read),
            ("searchTickets", json!({}), Guess::Read),
            ("delete-ticket", json!({}), Guess::Irreversible),
            ("delete_ticket", json!({"readOnlyHint": true}), Guess::Irreversible),
            ("close", json!({"destructiveHint": true}), Guess::Irreversible),
            ("close", json!({"destructiveHint": false}), Guess::Write),
            ("echo", json!({"readOnlyHint": true}), Guess::Read),
            ("getaway", json!({}), Guess::Write),
        ] {
            assert_eq!(mcp(name, &json!({"name": name, "annotations": annotations})).0, expected, "{name}");
        }
    }
}
