//! The lint on approval against Cedar's own evaluator: whatever the lint lets through, more approval never refuses what
//! less allowed. Seeded: each run tries the same policies.

use std::str::FromStr;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, RestrictedExpression as Expr,
};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::lint;

const POLICIES: usize = 2_000;

/// A condition, in any of the ways in which one could try to say it.
fn condition() -> impl Strategy<Value = String> {
    let leaves = [
        "context.approval.granted",
        "context.approval.granted",
        "context.approval.dual",
        "context.approval.dual",
        "context[\"approval\"][\"dual\"]",
        "{x: context.approval}.x.granted",
        "context.approval == {granted: true, dual: false}",
        "context has approval",
        "context has approval.dual",
        "context == {approval: {granted: true, dual: true}, input: context.input}",
        "context.input.n > 5",
        "context.input.n + 1 < 5",
        "context.input.b",
        "principal == resource",
        "true",
        "false",
    ];
    proptest::sample::select(leaves.to_vec()).prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            4 => two.clone().prop_map(|(a, b)| format!("({a} && {b})")),
            4 => two.clone().prop_map(|(a, b)| format!("({a} || {b})")),
            1 => inner.clone().prop_map(|a| format!("!({a})")),
            2 => (inner.clone(), two.clone()).prop_map(|(c, (a, b))| format!("(if {c} then {a} else {b})")),
            1 => two.clone().prop_map(|(a, b)| format!("(({a}) == ({b}))")),
            1 => two.prop_map(|(a, b)| format!("[{a}, true].contains({b})")),
            1 => inner.prop_map(|a| format!("{{x: {a}}}.x")),
        ]
    })
}

fn policy() -> impl Strategy<Value = String> {
    let effect = prop_oneof![4 => Just("forbid"), 1 => Just("permit")];
    let clause = (any::<bool>(), condition())
        .prop_map(|(when, c)| format!("{} {{ {c} }}", if when { "when" } else { "unless" }));
    (effect, proptest::collection::vec(clause, 1..3))
        .prop_map(|(effect, clauses)| format!("{effect} (principal, action, resource) {};", clauses.join(" ")))
}

/// Whether Cedar allows it at each rung, beside a permit of everything when the policy forbids.
fn rungs(text: &str, n: i64, b: bool) -> [bool; 3] {
    let base = if text.starts_with("forbid") { "permit (principal, action, resource);" } else { "" };
    let set = PolicySet::from_str(&format!("{base}{text}")).unwrap();
    let record = |pairs: [(&str, Expr); 2]| Expr::new_record(pairs.map(|(k, v)| (k.to_owned(), v))).unwrap();
    [(false, false), (true, false), (true, true)].map(|(granted, dual)| {
        let approval = record([("granted", Expr::new_bool(granted)), ("dual", Expr::new_bool(dual))]);
        let input = record([("n", Expr::new_long(n)), ("b", Expr::new_bool(b))]);
        let context = Context::from_pairs([("approval".to_owned(), approval), ("input".to_owned(), input)]).unwrap();
        let uid = |name: &str| EntityUid::from_str(&format!("T::\"{name}\"")).unwrap();
        let request = Request::new(uid("p"), uid("a"), uid("r"), context, None).unwrap();
        let answer = Authorizer::new().is_authorized(&request, &set, &Entities::empty());
        assert_eq!(answer.diagnostics().errors().count(), 0, "{text}");
        answer.decision() == Decision::Allow
    })
}

#[test]
fn what_the_lint_lets_through_only_rises_with_approval() {
    let mut runner = TestRunner::deterministic();
    let (mut lifted, mut caught) = (0, 0);
    for _ in 0..POLICIES {
        let text = policy().new_tree(&mut runner).unwrap().current();
        let parsed = cedar_policy::Policy::parse(None, &text).unwrap();
        let judged = lint::body(parsed.to_pst().unwrap().body());
        for (n, b) in [(0, false), (9, true), (9, false)] {
            let [low, medium, high] = rungs(&text, n, b);
            let rises = low <= medium && medium <= high;
            assert!(rises || judged.approval.is_some(), "{text} with n = {n}, b = {b}: {low} {medium} {high}");
            lifted += usize::from(judged.approval.is_none() && high && !low);
            caught += usize::from(!rises);
        }
    }
    // Else the test would be about nothing.
    assert!(lifted > 50 && caught > 500, "{lifted} lifted by approval, {caught} caught");
    println!(
        "{POLICIES} policies: {lifted} answers that approval lifts, {caught} that it would take back, all of them refused"
    );
}
