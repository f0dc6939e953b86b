//! Test files: `*.test.yaml` beside the policies. Read strictly; tables expand to one case for each row.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::case::Given;
use crate::call::Judgement;
use crate::config::{Document, Mistakes};

/// The `what` of `holdpoint schema` for these files.
pub const SCHEMA: &str = "test";

/// Tests of policies.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    /// Version of this format.
    #[schemars(range(min = 1, max = 1))]
    #[expect(dead_code, reason = "the schema checks it; there is one version")]
    version: u32,
    /// Facts of every test that does not give its own.
    #[serde(default)]
    defaults: Given,
    /// The tests.
    tests: Vec<Test>,
}

/// One test.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Test {
    /// What it shows, in words.
    pub name: String,
    /// The operation that is called: `crm.refund`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The arguments: path parameters, query parameters and body members in one object. `$column` stands for the value
    /// of a table's column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What a person does with a hold, instead of `call`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<Review>,
    /// Column names, then rows: one case for each. A column that is a key of `expect` is expected, the others stand
    /// for `$column`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Vec<Vec<Value>>>,
    /// Facts; see `defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<super::case::AgentGiven>,
    /// Facts; see `defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<super::case::WorkflowGiven>,
    /// Facts; see `defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// Facts; see `defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<super::case::BudgetGiven>,
    /// Facts; see `defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<super::case::HistoryGiven>,
    /// Facts; see `defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<super::case::TrustGiven>,
    /// Facts; see `defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<BTreeSet<String>>,
    /// Facts; see `defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<std::net::IpAddr>,
    /// What must come out.
    #[serde(default)]
    pub expect: Expect,
}

impl Test {
    /// Its facts.
    #[must_use]
    pub fn given(&self) -> Given {
        Given {
            agent: self.agent.clone(),
            workflow: self.workflow.clone(),
            now: self.now.clone(),
            budget: self.budget,
            history: self.history,
            trust: self.trust,
            evidence: self.evidence.clone(),
            source_ip: self.source_ip,
        }
    }
}

/// What must come out; at least one key. What is absent is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Expect {
    /// `low`, `medium`, `high` or `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TierWord>")]
    pub tier: Option<Judgement>,
    /// Exactly the policies that decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<BTreeSet<String>>,
    /// Exactly the groups whose approval is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvers: Option<BTreeSet<String>>,
    /// Exactly the kinds of evidence that are demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<BTreeSet<String>>,
    /// How many people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub people: Option<usize>,
    /// Whether a written reason is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<bool>,
    /// `@degrade` of what denies the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degrade: Option<String>,
    /// For reviews: whether the person may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<bool>,
}

/// The words of `tier`.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used")]
enum TierWord {
    Low,
    Medium,
    High,
    Deny,
}

/// The keys of [`Expect`]: columns of these names are expected.
const EXPECTED: [&str; 8] = ["tier", "because", "approvers", "evidence", "people", "justification", "degrade", "allow"];

/// What a person does with a hold, or with Holdpoint itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Review {
    /// The person.
    pub user: String,
    /// The person's one team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The person's teams, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// `hold.approve`, `audit.read` …
    pub action: String,
    /// Whether a second factor was proven.
    #[serde(default)]
    pub mfa: bool,
    /// `page`, `cli`, `api`, `slack`; `page` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The tier of the hold; `medium` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TierWord>")]
    pub tier: Option<Judgement>,
    /// The tool of its call; the first of the configuration when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The workflow of its call; the default one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The person for whom the agent acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// The teams that the hold asks for; the person's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvers: Option<Vec<String>>,
    /// The money at stake, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<i64>,
    /// It is done to Holdpoint itself, not to a hold.
    #[serde(default)]
    pub system: bool,
}

/// One test of a suite, or one row of its table.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its row, from 1, when it comes of a table, with what stands in it.
    pub row: Option<(usize, String)>,
    /// The line of the test.
    pub line: u64,
    /// The test, its placeholders filled in.
    pub test: Test,
}

/// One file of tests.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Where it stands.
    pub path: PathBuf,
    /// Facts of tests that give none.
    pub defaults: Given,
    /// The tests, tables expanded, in the order of the file.
    pub items: Vec<Item>,
}

/// The JSON Schema of test files, for editors: where a fact stands, a table's `$column` may stand.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = serde_json::to_value(schemars::schema_for!(File)).unwrap_or_default();
    let types = schema.get_mut("$defs").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
    for property in types.filter_map(|t| t.get_mut("properties")?.as_object_mut()).flat_map(Map::values_mut) {
        let placeholder = serde_json::json!({"type": "string", "pattern": "^\\$"});
        let members = property.as_object().cloned().unwrap_or_default();
        let text = members.get("type").is_some_and(|t| t == "string");
        if !text {
            let (about, own) = members.into_iter().partition::<Map<_, _>, _>(|(k, _)| k == "description");
            *property = Value::Object(about);
            if let Some(object) = property.as_object_mut() {
                object.insert("anyOf".to_owned(), Value::Array(vec![Value::Object(own), placeholder]));
            }
        }
    }
    schema
}

/// Every `*.test.yaml` below a folder, hidden ones left out, in the order of their names.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if name.ends_with(".test.yaml") || name.ends_with(".test.yml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Suite {
    /// Reads a file.
    ///
    /// # Errors
    /// Every mistake, with its line.
    pub fn read(path: &Path) -> Result<Self, Mistakes> {
        Self::of(&Document::read(path)?, path)
    }

    /// As [`Suite::read`], from text.
    ///
    /// # Errors
    /// As [`Suite::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Mistakes> {
        Self::of(&Document::parse(text, path)?, path)
    }

    fn of(document: &Document, path: &Path) -> Result<Self, Mistakes> {
        let value = document.value();
        let mut whole = value.clone();
        // Placeholders stand where numbers must: tests are held against the schema one by one, filled in.
        let tests = whole.get_mut("tests").and_then(Value::as_array_mut).map(std::mem::take);
        let file: File = document.typed(whole, "", SCHEMA)?;
        debug_assert!(file.tests.is_empty(), "the tests were taken out");
        let mut suite = Self { path: path.to_owned(), defaults: file.defaults, items: Vec::new() };
        let mut wrong = Mistakes(Vec::new());
        for (i, test) in tests.into_iter().flatten().enumerate() {
            match items(document, test, &format!("/tests/{i}")) {
                Ok(items) => suite.items.extend(items),
                Err(more) => wrong.0.extend(more.0),
            }
        }
        if wrong.0.is_empty() { Ok(suite) } else { Err(wrong) }
    }
}

fn items(document: &Document, test: Value, at: &str) -> Result<Vec<Item>, Mistakes> {
    let line = document.line(at);
    let rows = match test.get("table") {
        None => vec![(None, test)],
        Some(table) => {
            let table = table.clone();
            expanded(&test, &table).map_err(|e| document.mistake(&format!("{at}/table"), e))?
        }
    };
    let typed = |(row, value): (Option<(usize, String)>, Value)| {
        let test: Test = document.typed(value, at, SCHEMA)?;
        complete(&test).map_err(|e| document.mistake(at, e))?;
        Ok(Item { row, line, test })
    };
    rows.into_iter().map(typed).collect()
}

type Row = (Option<(usize, String)>, Value);

fn expanded(test: &Value, table: &Value) -> Result<Vec<Row>, String> {
    let rows: Vec<&Vec<Value>> = table.as_array().into_iter().flatten().filter_map(Value::as_array).collect();
    let Some((head, rows)) = rows.split_first().filter(|(_, rows)| !rows.is_empty()) else {
        return Err("a table is a list of lists: the names of its columns, then at least one row".to_owned());
    };
    let names: Vec<&str> = head.iter().filter_map(Value::as_str).collect();
    if names.len() != head.len() {
        return Err("the first row of a table names its columns".to_owned());
    }
    rows.iter().enumerate().map(|(i, row)| filled(test, &names, row, i + 1)).collect()
}

fn filled(test: &Value, names: &[&str], row: &[Value], number: usize) -> Result<Row, String> {
    if row.len() != names.len() {
        return Err(format!("row {number} has {} values for {} columns", row.len(), names.len()));
    }
    let mut test = test.clone();
    if let Some(members) = test.as_object_mut() {
        members.remove("table");
    }
    for (name, value) in names.iter().zip(row) {
        let used = put(&mut test, &format!("${name}"), value);
        if EXPECTED.contains(name) && !used {
            expect(&mut test, name, value);
        } else if !used {
            return Err(format!("nothing says `${name}`, so column `{name}` would change nothing"));
        }
    }
    let shown: Vec<String> = row.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
    Ok((Some((number, shown.join(", "))), test))
}

fn expect(test: &mut Value, name: &str, value: &Value) {
    if let Some(members) = test.as_object_mut() {
        let expect = members.entry("expect").or_insert_with(|| Value::Object(Map::new()));
        if let Some(expect) = expect.as_object_mut() {
            expect.insert(name.to_owned(), value.clone());
        }
    }
}

/// Puts a value in the place of each string that is the placeholder; whether there was one.
fn put(at: &mut Value, placeholder: &str, value: &Value) -> bool {
    match at {
        Value::String(s) if s == placeholder => {
            *at = value.clone();
            true
        }
        Value::Array(items) => {
            items.iter_mut().filter_map(|item| put(item, placeholder, value).then_some(())).count() > 0
        }
        Value::Object(members) => {
            members.values_mut().filter_map(|item| put(item, placeholder, value).then_some(())).count() > 0
        }
        _ => false,
    }
}

/// What a schema does not say: one question, and something that is expected of its answer.
fn complete(test: &Test) -> Result<(), String> {
    let (call, review) = (test.call.is_some(), test.review.is_some());
    if call == review {
        return Err("a test has either `call` or `review`".to_owned());
    }
    if review && test.input.is_some() {
        return Err("`input` belongs to `call`".to_owned());
    }
    let expect = &test.expect;
    if *expect == Expect::default() {
        return Err("a test that expects nothing cannot fail; say `expect: { tier: … }`".to_owned());
    }
    if call && expect.allow.is_some() {
        return Err("`expect.allow` belongs to `review`; for a call say `tier`".to_owned());
    }
    let of_calls = Expect { allow: None, because: None, ..expect.clone() };
    if review && (of_calls != Expect::default() || expect.allow.is_none()) {
        return Err("of a `review`, `expect` says `allow`, and may say `because`".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(tests: &str) -> Result<Suite, String> {
        let text = format!("version: 1\ntests:\n{tests}");
        Suite::parse(&text, Path::new("p.test.yaml")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_table_is_one_case_for_each_row() {
        let suite = parsed(
            "  - name: boundary\n    call: crm.refund\n    table: [[amount, tier], [5000, low], [5001, medium]]\n    \
             input: { amountMinor: $amount }\n    budget: { worstPct: $amount }\n",
        );
        let items = suite.unwrap().items;
        let seen: Vec<_> = items
            .iter()
            .map(|i| (i.row.clone().unwrap().1, i.test.input.clone().unwrap(), i.test.expect.tier.unwrap()))
            .collect();
        assert_eq!(
            seen,
            [
                ("5000, low".to_owned(), serde_json::json!({"amountMinor": 5000}), Judgement::Low),
                ("5001, medium".to_owned(), serde_json::json!({"amountMinor": 5001}), Judgement::Medium)
            ]
        );
        assert_eq!(items[1].test.budget.unwrap().worst_pct, Some(5001));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        for (tests, told) in [
            ("  - { name: a, call: x, expect: {} }\n", "a test that expects nothing cannot fail"),
            ("  - { name: a, expect: { tier: low } }\n", "either `call` or `review`"),
            ("  - { name: a, call: x, expect: { teir: low } }\n", "unknown key `teir`; `holdpoint schema test`"),
            ("  - { name: a, call: x, expect: { tier: maybe } }\n", "maybe"),
            ("  - { name: a, call: x, table: [[n], [1]], expect: { tier: low } }\n", "nothing says `$n`"),
            ("  - { name: a, call: x, table: [[n]], expect: { tier: low } }\n", "at least one row"),
            ("  - { name: a, call: x, table: [[n], [1, 2]], input: {n: $n}, expect: { tier: low } }\n", "row 1 has 2"),
            ("  - { name: a, call: x, drift: { score: 1 }, expect: { tier: low } }\n", "unknown key `drift`"),
            ("  - { name: a, call: x, call: y, expect: { tier: low } }\n", "duplicate"),
            ("  - { name: a, review: { user: m, action: hold.approve }, expect: { tier: low } }\n", "says `allow`"),
        ] {
            let error = parsed(tests).unwrap_err();
            assert!(error.contains(told) && error.contains("p.test.yaml:3"), "{tests}{error}");
        }
    }
}
