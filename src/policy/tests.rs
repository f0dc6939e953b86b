//! Everything that a set of policies can have wrong, and the shipped set.

use std::sync::Arc;

use serde_json::{Value, json};

use super::sample::{self, READ, loaded, model, operation, shipped, tool, try_loaded};
use super::{Counts, Defaults, Finding, Lift, Severity, Source, generated, input, load_sources, schema};
use crate::call::ToolKind;

const PERMIT: &str = "@id(\"base\") permit(principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
                      when { resource.env == \"prod\" };\n";

/// A forbid on refunds with these annotations and this body.
fn forbid(annotations: &str, body: &str) -> String {
    format!(
        "{PERMIT}@id(\"f\") @reason(\"why\") {annotations}\n\
         forbid(principal, action == Holdpoint::Action::\"crm.refund\", resource) {body};"
    )
}

fn errors(text: &str) -> Vec<Finding> {
    let findings = try_loaded(text).err().unwrap_or_default();
    findings.into_iter().filter(|f| f.severity == Severity::Error).collect()
}

/// The one error that a text has.
#[track_caller]
fn error(text: &str) -> Finding {
    let mut found = errors(text);
    assert_eq!(found.len(), 1, "{text}\n{}", found.iter().map(|f| format!("{f}\n")).collect::<String>());
    found.remove(0)
}

#[test]
fn the_shipped_set_loads_and_a_stale_schema_is_told() {
    let set = shipped();
    assert_eq!(set.counts(), Counts { low: 2, medium: 3, high: 2, never: 2, admin: 9, shadow: 0 });
    assert_eq!(set.files(), 2);
    let severe: Vec<_> = set.findings().iter().filter(|f| f.severity != Severity::Note).collect();
    assert!(severe.is_empty(), "{severe:?}");
    let dir = tempfile::tempdir().unwrap();
    assert!(generated::compare(dir.path(), set.schema_text()).is_some());
    generated::write(dir.path(), "old").unwrap();
    assert!(generated::compare(dir.path(), set.schema_text()).unwrap().message.contains("out of date"));
}

#[test]
fn a_wrong_field_is_an_error_that_names_the_right_one() {
    let f = error(&forbid("", "when { context.input.amount > 50000 }"));
    insta::assert_snapshot!(f.to_string(), @r###"
    error[policy-type]: no field `amount` in the input of crm.refund
      ┌─ policies/test.cedar:4:79
    4 │ forbid(principal, action == Holdpoint::Action::"crm.refund", resource) when { context.input.amount > 50000 };
      │                                                                                             ^^^^^^ did you mean `amountMinor`?
    "###);
}

#[test]
fn a_wrong_action_is_an_error_that_names_the_right_one() {
    let f = error("@id(\"a\") permit(principal, action == Holdpoint::Action::\"crm.refunds\", resource);");
    insta::assert_snapshot!(f.to_string(), @r###"
    error[policy-type]: unrecognized action `Holdpoint::Action::"crm.refunds"`
      ┌─ policies/test.cedar:1:38
    1 │ @id("a") permit(principal, action == Holdpoint::Action::"crm.refunds", resource);
      │                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ did you mean `Holdpoint::Action::"crm.refund"`?
    "###);
}

#[test]
fn a_syntax_error_has_its_place() {
    let f = error(&format!("{PERMIT}@id(\"b\")\nforbid(principal, action, resource) when {{ 1 + }};"));
    assert_eq!((f.code, f.line), ("policy-syntax", 4), "{f}");
}

#[test]
fn a_condition_that_can_never_be_true_is_an_error() {
    let f = error(&forbid("", "when { context.input.amountMinor > 5 && principal == resource }"));
    assert_eq!(f.code, "policy-suspect", "{f}");
}

#[test]
fn a_condition_that_always_holds_is_told() {
    let told = |body: &str| {
        let text = forbid("", body);
        let set = try_loaded(&text).unwrap();
        set.findings().iter().filter(|f| f.code == "policy-vacuous").map(|f| f.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        told("when { context.input has amountMinor }"),
        ["f: its first condition always holds, so it says nothing"]
    );
    assert_eq!(
        told("when { context.input.amountMinor > 5 } unless { principal == resource }"),
        ["f: condition 2 always holds, so it says nothing"]
    );
    assert!(told("when { context.input has reason }").is_empty());
    assert!(told("when { action in Holdpoint::Action::\"effect:money\" }").is_empty());
    let open = "@id(\"all\") permit(principal, action in Holdpoint::Action::\"call\", resource) when { true };";
    assert!(loaded(open).findings().iter().any(|f| f.code == "policy-vacuous"));
}

#[test]
fn an_optional_argument_needs_has() {
    let f = error(&forbid("", "when { context.input.reason == \"x\" }"));
    assert!(f.message.contains("optional"), "{f}");
}

#[test]
fn approval_used_other_than_positively_is_an_error() {
    let anti = "@id(\"anti\") permit(principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
                when { !context.approval.granted };";
    assert_eq!(error(anti).code, "policy-approval");
    assert_eq!(error(&anti.replace('!', "")).code, "policy-approval");
    for body in [
        "when { context.approval.granted }",
        "unless { !context.approval.granted }",
        "unless { context.approval.granted == true }",
        "unless { context has approval && context.approval.granted }",
    ] {
        let found = errors(&forbid("@approvers(\"finance\")", body));
        assert!(found.iter().any(|f| f.code == "policy-approval" && f.line == 4), "{body}: {found:?}");
    }
}

#[test]
fn ids_are_demanded_unique_and_well_formed() {
    let base =
        "permit(principal, action == Holdpoint::Action::\"crm.refund\", resource) when { resource.env == \"prod\" };";
    assert_eq!(error(base).code, "policy-id");
    let f = error(&format!("{PERMIT}{PERMIT}"));
    assert!(f.message.contains("stands already at policies/test.cedar:1"), "{f}");
    assert_eq!(error(&format!("@id(\"Not Kebab\") {base}")).code, "policy-annotation");
    assert!(errors(&format!("@id(\"a\") @id(\"b\") {base}")).iter().any(|f| f.code == "policy-syntax"));
}

#[test]
fn annotations_are_a_closed_vocabulary() {
    let f = error(&forbid("@evidense(\"ticket\")", "when { context.input.amountMinor > 5 }"));
    assert_eq!(f.help.as_deref(), Some("did you mean `@evidence`?"));
    assert!(
        errors(&forbid("@x_anything(\"ours\") @owner(\"us\")", "when { context.input.amountMinor > 5 }")).is_empty()
    );
    for (annotations, body, code) in [
        ("@mode(\"silent\")", "when { context.input.amountMinor > 5 }", "policy-annotation"),
        ("@sla(\"15m\")", "when { context.input.amountMinor > 5 }", "policy-annotation"),
        ("@sample(\"2%\")", "when { context.input.amountMinor > 5 }", "policy-annotation"),
        ("", "unless { context.approval.granted }", "policy-approvers"),
        ("@approvers(\"finance,a|b\")", "unless { context.approval.granted }", "policy-annotation"),
        ("@approvers(\"finance\") @sla(\"soon\")", "unless { context.approval.granted }", "policy-annotation"),
        (
            "@approvers(\"finance\") @degrade(\"else=handoff\")",
            "unless { context.approval.granted }",
            "policy-annotation",
        ),
    ] {
        assert_eq!(error(&forbid(annotations, body)).code, code, "{annotations}");
    }
    let silent = forbid("", "when { context.input.amountMinor > 5 }").replace("@reason(\"why\")", "");
    assert_eq!(error(&silent).code, "policy-reason");
}

#[test]
fn approvers_must_exist_and_be_enough() {
    let granted =
        |groups: &str| error(&forbid(&format!("@approvers(\"{groups}\")"), "unless { context.approval.granted }"));
    let f = granted("suport-leads");
    assert_eq!((f.code, f.help.as_deref()), ("policy-group", Some("did you mean `support-leads`?")));
    let dual = |groups: &str| errors(&forbid(&format!("@approvers(\"{groups}\")"), "unless { context.approval.dual }"));
    assert_eq!(dual("finance").first().map(|f| f.code), Some("policy-quorum"));
    assert!(dual("finance,support-leads").is_empty() && dual("support-leads").is_empty());
    assert!(
        dual("finance|data-stewards").is_empty() && dual("workflow-owner").is_empty() && dual("tool-owner").is_empty()
    );

    let mut m = model();
    m.teams.insert("night-shift".to_owned());
    m.workflows.insert("orphans".to_owned(), None);
    let with = |text: &str, m: &super::Model| {
        let source = Source::new("t.cedar", text);
        let found = load_sources(&[source], m, Defaults::default()).err().unwrap_or_default();
        found.into_iter().filter(|f| f.severity == Severity::Error).map(|f| f.code).collect::<Vec<_>>()
    };
    let of = |groups: &str| forbid(&format!("@approvers(\"{groups}\")"), "unless { context.approval.granted }");
    assert_eq!(with(&of("night-shift"), &m), ["policy-quorum"]);
    assert_eq!(with(&of("workflow-owner"), &m), ["policy-group"]);
    m.reviewers = None;
    assert!(with(&of("night-shift"), &m).is_empty() && with(&of("unheard-of"), &m).is_empty());
}

#[test]
fn an_empty_set_is_an_error() {
    assert_eq!(error("").code, "policy-empty");
    assert_eq!(error("// nothing yet\n").code, "policy-empty");
    assert!(load_sources(&[], &model(), Defaults::default()).is_err());
    let dir = tempfile::tempdir().unwrap();
    assert!(super::load(dir.path(), &model(), Defaults::default()).is_err());
    assert!(super::load(&dir.path().join("missing"), &model(), Defaults::default()).is_err());
}

#[test]
fn templates_and_open_scopes_are_errors() {
    let template = "@id(\"t\") permit(principal == ?principal, action == Holdpoint::Action::\"crm.refund\", resource);";
    assert!(errors(&format!("{PERMIT}{template}")).iter().any(|f| f.code == "policy-template"));
    let f = error("@id(\"open\") permit(principal, action, resource);");
    assert_eq!(f.code, "policy-scope", "{f}");
    let mixed = "@id(\"m\") permit(principal, action in [Holdpoint::Action::\"crm.refund\", \
                 Holdpoint::Action::\"hold.view\"], resource);";
    assert_eq!(error(mixed).code, "policy-scope");
    let set = loaded("@id(\"all\") permit(principal, action in Holdpoint::Action::\"call\", resource);");
    assert!(set.findings().iter().any(|f| f.code == "policy-open" && f.severity == Severity::Warning));
}

#[test]
fn arithmetic_needs_a_bound() {
    assert!(errors(&forbid("", "when { context.input.amountMinor * 2 > 5 }")).is_empty());
    let mut m = model();
    let open = json!({"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]});
    m.operations.push(Arc::new(operation(&tool("crm", ToolKind::Rest), "count", READ, Some(open))));
    let text = format!(
        "{PERMIT}@id(\"c\") @reason(\"r\") forbid(principal, action == Holdpoint::Action::\"crm.count\", resource)\n\
         when {{ context.input.n * 1000000 > 5 }};"
    );
    let found = load_sources(&[Source::new("t.cedar", text)], &m, Defaults::default()).err().unwrap();
    let found: Vec<_> = found.iter().filter(|f| f.severity == Severity::Error).collect();
    assert_eq!((found.len(), found[0].code, found[0].line), (1, "policy-arithmetic", 4));
}

#[test]
fn names_that_the_configuration_does_not_know_are_told() {
    let f = error(&PERMIT.replace("resource)", "resource == Holdpoint::Tool::\"crmm\")"));
    assert_eq!((f.code, f.help.as_deref()), ("policy-name", Some("did you mean `crm`?")));
    let set = loaded(&PERMIT.replace("(principal,", "(principal in Holdpoint::AgentGroup::\"suport\","));
    assert!(set.findings().iter().any(|f| f.code == "policy-name" && f.severity == Severity::Warning));
    let set = loaded(&PERMIT.replace("(principal,", "(principal in Holdpoint::AgentGroup::\"from-a-token\","));
    assert!(set.findings().iter().all(|f| f.code != "policy-name"));
    let granted = forbid("@approvers(\"finance|night\")", "unless { context.approval.granted }");
    let mut m = model();
    m.teams.insert("night".to_owned());
    let set = load_sources(&[Source::new("t.cedar", granted)], &m, Defaults::default()).unwrap();
    assert!(set.findings().iter().any(|f| f.code == "policy-quorum" && f.severity == Severity::Warning));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = format!(
        "{}\n@id(\"x\") permit(principal, action == Holdpoint::Action::\"crm.nothing\", resource);",
        forbid("@colour(\"red\")", "when { context.input.amount > 5 }").replace("@reason(\"why\")", "")
    );
    let codes: Vec<_> = errors(&text).iter().map(|f| f.code).collect();
    assert_eq!(codes, ["policy-annotation", "policy-reason", "policy-type", "policy-type"]);
}

#[test]
fn arguments_get_the_types_that_policies_know() {
    let schema = json!({
        "type": "object",
        "$defs": {"line": {"type": "object", "properties": {"sku": {"type": "string"}, "n": {"type": "integer"}}, "required": ["sku"]}},
        "properties": {
            "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
            "rate": {"type": "number"},
            "odd name": {"type": "boolean"},
            "in": {"type": "string"},
            "either": {"type": ["string", "null"]},
            "any": {},
            "loop": {"$ref": "#/properties/loop"}
        },
        "required": ["lines"]
    });
    let mut op = operation(&tool("crm", ToolKind::Rest), "order", READ, Some(schema));
    op.path_params = vec!["orderId".to_owned()];
    let (record, findings) = input::members(&op);
    assert_eq!(record.keys().collect::<Vec<_>>(), ["in", "lines", "odd name", "orderId", "rate"]);
    assert!(record["orderId"].required && record["lines"].required && !record["rate"].required);
    assert_eq!(findings.iter().filter(|f| f.code == "policy-input").count(), 3);
    assert_eq!(findings.iter().filter(|f| f.code == "policy-number").count(), 1);
    let m = super::Model { operations: vec![Arc::new(op)], ..super::Model::default() };
    let text = schema::generate(&m).text;
    let want = "type CrmOrderInput = { \"in\"?: __cedar::String, lines: Set<{ n?: __cedar::Long, sku: __cedar::String }>, \
                lines_len: __cedar::Long, \"odd name\"?: __cedar::Bool, orderId: __cedar::String, rate?: __cedar::decimal };";
    assert!(text.contains(want), "{text}");
    assert!(cedar_policy::Schema::from_cedarschema_str(&text).is_ok());
}

#[test]
fn a_schema_that_cannot_become_types_is_told_and_has_an_end() {
    let with = |schema: Value| {
        let op = operation(&tool("crm", ToolKind::Rest), "order", READ, Some(schema));
        let m = super::Model { operations: vec![Arc::new(op)], ..super::Model::default() };
        let text = "@id(\"a\") permit(principal, action == Holdpoint::Action::\"crm.order\", resource)\n\
                    when { context.input.n > 5 };";
        let found = load_sources(&[Source::new("t.cedar", text)], &m, Defaults::default()).err().unwrap();
        let one = |code: &str| found.iter().find(|f| f.code == code).unwrap().clone();
        (one("policy-input").message, one("policy-type").help)
    };
    let (left_out, help) = with(json!({"type": "object", "properties": {"n": {"type": ["integer", "null"]}}}));
    assert!(left_out.starts_with("crm.order: 'n' has no type that policies know"), "{left_out}");
    assert_eq!(help.as_deref(), Some("it is an argument, of a type that policies do not know"));
    let (none, _) = with(json!({"type": "array", "items": {}}));
    assert!(none.contains("its schema is of no object"), "{none}");
    // Twelve references to itself, twelve deep, would be some nine billion members.
    let again: serde_json::Map<String, Value> = (0..12).map(|i| (format!("r{i:02}"), json!({"$ref": "#"}))).collect();
    let (many, _) = with(json!({"type": "object", "properties": again}));
    assert!(many.contains("more than 1000 arguments") || many.contains("r00.r00"), "{}", many.len());
}

#[test]
fn names_that_clash_in_the_schema_are_errors() {
    let mut op = operation(&tool("crm", ToolKind::Rest), "x", READ, None);
    op.groups = vec!["admin".to_owned()];
    let m = super::Model { operations: vec![Arc::new(op)], ..super::Model::default() };
    assert!(schema::generate(&m).findings.iter().any(|f| f.code == "policy-schema"));
}

#[test]
fn the_digest_covers_names_and_bytes() {
    let of = |name: &str, text: &str| {
        let source = Source::new(name, text);
        load_sources(&[source], &model(), Defaults::default()).unwrap().digest()
    };
    assert_ne!(of("a.cedar", PERMIT), of("b.cedar", PERMIT));
    assert_ne!(of("a.cedar", PERMIT), of("a.cedar", &format!("{PERMIT}\n")));
    assert_eq!(of("a.cedar", PERMIT), of("a.cedar", PERMIT));
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = dirs.map(|dir| {
        std::fs::create_dir_all(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/a.cedar"), PERMIT).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not a policy").unwrap();
        super::load(dir.path(), &model(), Defaults::default()).unwrap().digest()
    });
    assert_eq!(one, two, "a digest does not depend on where the directory stands");
}

#[test]
fn what_nobody_can_release_is_listed() {
    let set = shipped();
    assert_eq!(set.nobody_can_release().into_iter().collect::<Vec<_>>(), ["budget-gone", "credit-limit-never"]);
    assert!(set.findings().iter().any(|f| f.message == "credit-limit-never: nobody can release this one. Intended?"));
    let lift = |id: &str| set.policies().iter().find(|p| p.id == id).unwrap().lift;
    assert_eq!((lift("refund-review"), lift("refund-dual")), (Lift::Granted, Lift::Dual));
    assert_eq!(sample::model().all_teams().len(), 4);
}
