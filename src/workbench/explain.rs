//! Why a call is judged as it is, and the smallest changes that would make it be judged otherwise.

use serde_json::Value;

use crate::call::{GrantCaps, Judgement, Refusal};
use crate::gates::authz::{Inspection, Match};

use super::vary::{all_borders, allowance, candidates, member, varied};
use super::{Bench, Case};

/// One policy of the operation's slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Its id.
    pub policy: String,
    /// `file:line`.
    pub at: String,
    /// Whether it forbids.
    pub forbid: bool,
    /// It stands in no file: it is what a stage demands.
    pub built_in: bool,
    /// How it took the call.
    pub how: Match,
}

/// A single change that would make the call be judged otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What policy would say then.
    pub judgement: Judgement,
    /// The member: `amountMinor`, `budget.worstPct`.
    pub member: String,
    /// Its value then; `None` when it is left out.
    pub value: Option<Value>,
}

/// All that is to be said about one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What policy says, rung by rung.
    pub seen: Inspection,
    /// Every policy that can apply to the operation, in the order of the set.
    pub looked: Vec<Looked>,
    /// What is closest: at most one change for each other judgement and member.
    pub closest: Vec<Change>,
    /// The widest grant that a reviewer may give for calls like it.
    pub grant: Option<GrantCaps>,
}

/// Explains a case.
///
/// # Errors
/// When the question cannot be put.
pub fn explain(bench: &Bench, case: &Case) -> Result<Explanation, Refusal> {
    let question = case.question();
    let seen = bench.policies.inspect(&question)?;
    let looked = bench.policies.matches(&question)?.into_iter().map(|m| Looked {
        policy: m.policy.id.clone(),
        at: m.policy.at.clone(),
        forbid: m.policy.is_forbid(),
        built_in: m.policy.built_in,
        how: m.how,
    });
    let looked = looked.collect();
    let closest = closest(bench, case, seen.judgement);
    let grant = seen.terms.as_ref().and_then(|terms| bench.policies.grantable(terms).ok());
    Ok(Explanation { seen, looked, closest, grant })
}

/// Asks again with each member at, below and above each value that a policy compares it with, the nearest first; keeps what
/// is nearest to the case for each judgement.
fn closest(bench: &Bench, case: &Case, now: Judgement) -> Vec<Change> {
    let policies = bench.policies.loaded().slice(&case.operation);
    let left = allowance(policies.len());
    let borders = all_borders(policies.into_iter().map(AsRef::as_ref));
    let mut tries: Vec<_> = borders.iter().flat_map(|b| candidates(b, case).into_iter().map(move |c| (b, c))).collect();
    tries.sort_by_key(|(_, (_, distance))| *distance);
    let mut found: Vec<(Change, u128)> = Vec::new();
    for (border, (value, distance)) in tries.into_iter().take(left) {
        let known = |judgement: Judgement, found: &[(Change, u128)]| {
            found.iter().any(|(c, _)| c.judgement == judgement && c.member == member(&border.path))
        };
        let Some(varied) = varied(case, &border.path, value.as_ref()) else { continue };
        if bench.schemas.recheck(&case.operation, &varied.arguments).is_err() {
            continue;
        }
        let Ok(seen) = bench.policies.inspect(&varied.question()) else { continue };
        if seen.judgement != now && !known(seen.judgement, &found) {
            found.push((Change { judgement: seen.judgement, member: member(&border.path), value }, distance));
        }
    }
    found.sort_by_key(|(change, _)| change.judgement);
    // Whoever is held or refused wants to know what is easier; that it could be worse is told where it cannot.
    let easier = found.iter().any(|(change, _)| change.judgement < now);
    found.into_iter().map(|(change, _)| change).filter(|c| !easier || c.judgement < now).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::sample::shipped;
    use crate::workbench::case::Given;
    use crate::workbench::tests::bench;

    fn explained(name: &str, arguments: Value, given: Value) -> Explanation {
        let bench = bench(shipped());
        let model = bench.policies.loaded().model();
        let operation = model.operations.iter().find(|o| o.name == name).unwrap();
        let given: Given = serde_json::from_value(given).unwrap();
        let case = given.case(operation, arguments, model).unwrap();
        explain(&bench, &case).unwrap()
    }

    fn refund(amount: i64) -> Value {
        json!({"customerId": "c1", "orderId": "o1", "amountMinor": amount, "currency": "EUR"})
    }

    fn shown(changes: &[Change]) -> Vec<String> {
        let value = |c: &Change| c.value.as_ref().map_or_else(|| "left out".to_owned(), ToString::to_string);
        changes.iter().map(|c| format!("{} {} {}", c.judgement.as_str(), c.member, value(c))).collect()
    }

    #[test]
    fn what_matched_is_told_with_the_values_and_what_is_closest() {
        let e =
            explained("crm.refund", refund(88_000), json!({"agent": {"group": "support"}, "budget": {"worstPct": 81}}));
        assert_eq!(e.seen.judgement, Judgement::High);
        let how = |id: &str| e.looked.iter().find(|l| l.policy == id).map(|l| l.how.clone()).unwrap();
        assert_eq!(how("refund-dual"), Match::Yes(vec!["amountMinor 88000 > 50000".into()]));
        assert_eq!(how("budget-near"), Match::No(vec!["budget.worstPct 81 < 90".into()]));
        assert_eq!(how("support-may-attempt"), Match::Yes(vec!["call.stage \"checkpointed\" ≠ \"assist\"".into()]));
        assert_eq!(shown(&e.closest), ["low amountMinor 5000", "medium amountMinor 50000"]);
        let e = explained("crm.refund", refund(5000), json!({"agent": {"group": "support"}}));
        let want = [
            "medium amountMinor 5001",
            "medium history.firstTimeTarget true",
            "medium trust.score 39",
            "medium budget.worstPct 90",
            "high amountMinor 50001",
        ];
        assert_eq!(shown(&e.closest)[..5], want);
    }

    #[test]
    fn a_stranger_is_told_the_scope_and_a_never_rule_what_to_leave_out() {
        let e = explained("crm.refund", refund(1200), json!({"agent": {"group": "reporting"}}));
        assert_eq!((e.seen.judgement, e.seen.because.len()), (Judgement::Deny, 0));
        let scope = e.looked.iter().find(|l| l.policy == "support-may-attempt").unwrap();
        assert_eq!(scope.how, Match::No(vec!["scope: principal in AgentGroup::\"support\"".into()]));
        let arguments = json!({"customerId": "c1", "creditLimitMinor": 5});
        let e = explained("crm.update_customer", arguments, json!({"agent": {"group": "support"}}));
        assert_eq!(e.seen.because, ["credit-limit-never"]);
        assert_eq!(shown(&e.closest), ["low creditLimitMinor left out"]);
    }
}
