//! Test files run against the shipped policies.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::Bench;
use super::suite::Suite;
use super::testing::{Ended, Run};
use crate::clock::SystemClock;
use crate::gates::authz::Policies;
use crate::gates::schema::Schemas;
use crate::policy::Loaded;
use crate::policy::sample::shipped;

/// A bench around a set.
pub(crate) fn bench(loaded: Loaded) -> Bench {
    let operations = loaded.model().operations.clone();
    Bench {
        policies: Policies::new(loaded, Arc::new(|_| {})).unwrap(),
        schemas: Schemas::new(&operations, HashMap::new(), Arc::new(SystemClock)),
    }
}

fn run(tests: &str) -> (Vec<Ended>, Vec<String>) {
    let bench = bench(shipped());
    let head = "version: 1\ndefaults: { agent: { id: support-bot, group: support } }\ntests:\n";
    let suite = Suite::parse(&format!("{head}{tests}"), Path::new("p.test.yaml")).unwrap();
    let mut run = Run::default();
    let ended = run.suite(&bench, &suite);
    (ended, run.never_tested(&bench).into_iter().map(str::to_owned).collect())
}

const REFUND: &str = "call: crm.refund, input: { customerId: c1, orderId: o1, amountMinor: 88000, currency: EUR }";

fn problems(expect: &str) -> Vec<(String, String, String, Vec<String>)> {
    let (ended, _) = run(&format!("  - {{ name: a, {REFUND}, expect: {expect} }}\n"));
    let mut ended = ended;
    ended.remove(0).problems.into_iter().map(|p| (p.what.to_owned(), p.wanted, p.got, p.hints)).collect()
}

#[test]
fn a_test_passes_only_when_everything_it_expects_comes_out() {
    let all = "{ tier: high, because: [refund-review, refund-dual], approvers: [finance, support-leads], \
               evidence: [order, ticket], people: 2, justification: true }";
    assert_eq!(problems(all), []);
    assert_eq!(problems("{ tier: medium }")[0].0, "tier");
    // A superset would hide a dead rule.
    let superset = problems("{ because: [refund-dual] }");
    assert_eq!((superset[0].0.as_str(), superset[0].2.as_str()), ("because", "refund-dual, refund-review"));
    assert!(superset[0].3[0].starts_with("refund-review matched: amountMinor 88000 > 5000"), "{superset:?}");
    let missing = problems("{ because: [refund-review, refund-dual, budget-near] }");
    assert!(missing[0].3[0].starts_with("budget-near did not match: budget.worstPct 0 < 90"), "{missing:?}");
    let unknown = problems("{ because: [refund-review, refund-dual, refund-duel] }");
    assert_eq!(unknown[0].3, ["no policy `refund-duel` covers crm.refund"]);
    assert_eq!(problems("{ tier: high, people: 1 }")[0].0, "people");
}

#[test]
fn input_outside_the_schema_is_no_pass() {
    let (ended, _) = run("  - { name: a, call: crm.refund, input: { amountMinor: 5 }, expect: { tier: low } }\n  \
         - { name: b, call: crm.refnd, expect: { tier: deny } }\n  \
         - { name: c, call: crm.refund, input: { customerId: c1, orderId: o1, amountMinor: 1200, currency: EUR }, workflow: { stage: never }, expect: { tier: low } }\n");
    let what: Vec<_> = ended.iter().map(|e| e.problems[0].what).collect();
    assert_eq!(what, ["input", "call", "facts"]);
    assert_eq!(ended[1].problems[0].hints, ["did you mean `crm.refund`?"]);
}

#[test]
fn reviews_are_asked_of_the_admin_plane() {
    let review =
        |more: &str| format!("{{ user: maya, group: support-leads, action: hold.approve, mfa: true, {more} }}");
    let (ended, never) = run(&format!(
        "  - {{ name: a, review: {}, expect: {{ allow: true, because: [leads-review] }} }}\n  \
         - {{ name: b, review: {}, expect: {{ allow: false, because: [four-eyes] }} }}\n  \
         - {{ name: c, review: {}, expect: {{ allow: false, because: [high-tier-needs-mfa-and-page] }} }}\n  \
         - {{ name: d, review: {}, expect: {{ allow: true }} }}\n",
        review("tier: medium"),
        review("requestedBy: maya"),
        review("tier: high, channel: slack"),
        review("tier: high, channel: slack"),
    ));
    let failed: Vec<_> = ended.iter().map(|e| e.problems.len()).collect();
    assert_eq!(failed, [0, 0, 0, 1]);
    assert!(never.contains(&"platform-operates".to_owned()) && !never.contains(&"four-eyes".to_owned()));
}
