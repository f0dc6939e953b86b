//! How a call is undone: which operation takes it back, with which arguments.

use std::time::Duration;

use serde_json::{Map, Value};

use super::States;

/// How long after its end a call may be undone, unless configured.
pub const UNDO_WITHIN: Duration = Duration::from_secs(86_400);

/// The call that takes another one back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoRule {
    /// Name of its operation, of the same tool.
    pub operation: String,
    /// Its arguments.
    pub how: UndoHow,
    /// How long after the end of the call.
    pub within: Duration,
}

/// Where the arguments of an undo come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UndoHow {
    /// The body says what was there before; path parameters are those of the call.
    Before,
    /// Each argument by name.
    With(Vec<(String, UndoValue)>),
}

/// Where one argument of an undo comes from: a JSON Pointer into one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UndoValue {
    /// The answer of the call: its body, or the result of an MCP tool.
    Result(String),
    /// Its arguments.
    Input(String),
    /// The state before, as the preview read it.
    Before(String),
}

impl UndoRule {
    /// Whether the state before is needed.
    #[must_use]
    pub fn needs_before(&self) -> bool {
        match &self.how {
            UndoHow::Before => true,
            UndoHow::With(all) => all.iter().any(|(_, v)| matches!(v, UndoValue::Before(_))),
        }
    }

    /// Whether the answer is needed.
    #[must_use]
    pub fn needs_result(&self) -> bool {
        matches!(&self.how, UndoHow::With(all) if all.iter().any(|(_, v)| matches!(v, UndoValue::Result(_))))
    }
}

/// What is known of the call that is to be undone.
#[derive(Debug)]
pub struct Undone<'a> {
    /// Its full arguments.
    pub input: &'a Value,
    /// Its request body as JSON; null when it is none.
    pub body: &'a Value,
    /// The states that its preview read.
    pub states: &'a States,
    /// Its answer, or an MCP tool's result; null when there is none.
    pub result: &'a Value,
}

/// The arguments of the call that undoes another one. `path_params` are those of its operation; a `patch` puts back only
/// what the call touched.
///
/// # Errors
/// In words, when something that is needed was not kept or is not there.
pub fn undo_arguments(how: &UndoHow, path_params: &[String], patch: bool, of: &Undone<'_>) -> Result<Value, String> {
    let before = || of.states.before.as_ref().ok_or("the state before it was not read, or is not kept any more");
    let mut all = Map::new();
    match how {
        UndoHow::Before => {
            let before = before()?;
            let body = if patch { inverse(of.body, before) } else { before.clone() };
            let Value::Object(members) = body else { return Err("the state before is no JSON object".into()) };
            all.extend(members.into_iter().filter(|(name, _)| !path_params.contains(name)));
            for name in path_params {
                let value = of.input.get(name).ok_or_else(|| format!("the call has no argument `{name}`"))?;
                all.insert(name.clone(), value.clone());
            }
        }
        UndoHow::With(pairs) => {
            for (name, value) in pairs {
                let (from, what, pointer) = match value {
                    UndoValue::Result(p) => (of.result, "answer", p),
                    UndoValue::Input(p) => (of.input, "arguments", p),
                    UndoValue::Before(p) => (before()?, "state before", p),
                };
                let value = from.pointer(pointer).filter(|v| !v.is_null());
                let value = value.ok_or_else(|| format!("the {what} of the call has nothing at `{pointer}`"))?;
                all.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(Value::Object(all))
}

/// The merge patch (RFC 7396) that puts back what `patch` touches; what was not there is taken away.
fn inverse(patch: &Value, before: &Value) -> Value {
    let (Value::Object(patch), Value::Object(was)) = (patch, before) else { return before.clone() };
    let back = |(name, value): (&String, &Value)| {
        let value = match was.get(name) {
            None => Value::Null,
            Some(old) if value.is_object() => inverse(value, old),
            Some(old) => old.clone(),
        };
        (name.clone(), value)
    };
    Value::Object(patch.iter().map(back).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_is_taken_back_where_it_touched() {
        let before = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 1}, "z": 0});
        let patch = json!({"a": 9, "b": {"c": null, "n": 1}, "e": 4, "new": true});
        let mut after = before.clone();
        json_patch::merge(&mut after, &patch);
        let back = inverse(&patch, &before);
        assert_eq!(back, json!({"a": 1, "b": {"c": 2, "n": null}, "e": {"f": 1}, "new": null}));
        json_patch::merge(&mut after, &back);
        assert_eq!(after, before);
    }

    #[test]
    fn arguments_come_from_where_the_rule_says() {
        let states = States { before: Some(json!({"id": "c_1", "mail": "old"})), ..States::default() };
        let (input, result) = (json!({"id": "c_1", "mail": "new"}), json!({"id": 7}));
        let of = Undone { input: &input, body: &json!({"mail": "new"}), states: &states, result: &result };
        let params = ["id".to_owned()];
        let put = undo_arguments(&UndoHow::Before, &params, false, &of).unwrap();
        assert_eq!(put, json!({"mail": "old", "id": "c_1"}));
        let with = |v: UndoValue| undo_arguments(&UndoHow::With(vec![("x".into(), v)]), &[], false, &of);
        assert_eq!(with(UndoValue::Result("/id".into())).unwrap(), json!({"x": 7}));
        assert_eq!(with(UndoValue::Input("/mail".into())).unwrap(), json!({"x": "new"}));
        assert_eq!(with(UndoValue::Before("/mail".into())).unwrap(), json!({"x": "old"}));
        assert!(with(UndoValue::Result("/none".into())).is_err());
        let nothing = Undone { states: &States::default(), ..of };
        assert!(undo_arguments(&UndoHow::Before, &params, true, &nothing).is_err());
    }
}
