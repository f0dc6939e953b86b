//! A test out of a recorded call: what is needed to come to the same answer, and no more of anybody's data than that.

use serde_json::{Value, json};

use crate::call::{Facts, Trust};
use crate::gates::authz::Inspection;

use super::case::{AgentGiven, BudgetGiven, Given, HistoryGiven, MeterGiven, TrustGiven, WorkflowGiven};
use super::history::Recorded;
use super::{Bench, Case};

/// Stands for whatever no policy looks at.
const ANYTHING: &str = "x";

/// A test file with one test, from a recorded call and what these policies say to it.
///
/// # Errors
/// When the question cannot be put, in words.
pub fn draft(bench: &Bench, recorded: &Recorded, case: &Case) -> Result<String, String> {
    let ask = |case: &Case| bench.policies.inspect(&case.question());
    let seen = ask(case).map_err(|refusal| refusal.public_text().to_owned())?;
    let alike = |case: &Case| {
        bench.schemas.recheck(&case.operation, &case.arguments).is_ok()
            && ask(case).is_ok_and(|other| other.judgement == seen.judgement && other.because == seen.because)
    };
    let case = bared(case, alike);
    let given = given(&case);
    let expect = expected(&seen);
    let mut lines = vec![
        "# yaml-language-server: $schema=https://holdpoint.dev/schema/test-v1.json".to_owned(),
        format!(
            "# From {} of {}, which ended `{}`. What policies do not look at was taken out.",
            recorded.id, recorded.at, recorded.state
        ),
    ];
    if seen.judgement != recorded.judgement {
        lines.push(format!(
            "# It was judged {} then; below stands what these policies say.",
            recorded.judgement.as_str()
        ));
    }
    lines.extend(["version: 1".to_owned(), "tests:".to_owned()]);
    lines.push(format!("  - name: {}", json!(format!("{} as it was called on {}", recorded.operation, recorded.at))));
    lines.push(format!("    call: {}", recorded.operation));
    let members = serde_json::to_value(given).unwrap_or_default();
    for (name, value) in members.as_object().into_iter().flatten() {
        lines.push(format!("    {name}: {value}"));
    }
    lines.push(format!("    input: {}", case.arguments));
    lines.push(format!("    expect: {expect}"));
    Ok(lines.join("\n") + "\n")
}

/// The case without what does not matter: strings of arguments, claims, the person acted for.
fn bared(case: &Case, alike: impl Fn(&Case) -> bool) -> Case {
    let mut texts = Vec::new();
    strings(&case.arguments, String::new(), &mut texts);
    let mut case = case.clone();
    let mut take = |change: &dyn Fn(&mut Case)| {
        let mut other = case.clone();
        change(&mut other);
        if alike(&other) {
            case = other;
        }
    };
    take(&|c| std::sync::Arc::make_mut(&mut c.principal).claims.clear());
    take(&|c| std::sync::Arc::make_mut(&mut c.principal).acting_for = None);
    take(&|c| c.context.step = None);
    take(&|c| c.facts.source_ip = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    for pointer in texts {
        take(&|c| {
            if let Some(member) = c.arguments.pointer_mut(&pointer) {
                *member = ANYTHING.into();
            }
        });
    }
    case
}

/// Pointers of every string.
fn strings(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| strings(item, format!("{at}/{i}"), found));
        }
        Value::Object(members) => members.iter().for_each(|(name, item)| {
            strings(item, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
        }),
        _ => {}
    }
}

fn given(case: &Case) -> Given {
    let p = &case.principal;
    let Facts { now, evidence, source_ip, budget, history, trust } = &case.facts;
    let meter = |m: crate::call::Meter| {
        (m != crate::call::Meter::default())
            .then_some(MeterGiven { used_pct: m.used_pct, remaining_minor: m.remaining_minor })
    };
    let budget = BudgetGiven {
        worst_pct: None,
        step: meter(budget.step),
        run: meter(budget.run),
        user: meter(budget.user),
        org: meter(budget.org),
    };
    let spent = [budget.step, budget.run, budget.user, budget.org].iter().any(Option::is_some);
    let history = HistoryGiven {
        calls_this_run: history.calls_this_run,
        calls_last_hour: history.calls_last_hour,
        denied_last_hour: history.denied_last_hour,
        sum_minor_today: history.sum_minor_today,
        first_time_target: history.first_time_target,
    };
    Given {
        agent: Some(AgentGiven {
            id: Some(p.agent.clone()),
            group: None,
            groups: p.groups.clone(),
            org: Some(p.org.clone()),
            owner: p.owner.clone(),
            on_behalf_of: p.acting_for.clone(),
            claims: p.claims.clone(),
        }),
        workflow: Some(WorkflowGiven {
            name: Some(case.context.workflow.clone()),
            stage: Some(case.context.stage.clone()),
            step: case.context.step.clone(),
        }),
        now: Some(now.to_string()),
        budget: spent.then_some(budget),
        history: (history != HistoryGiven::default()).then_some(history),
        trust: (*trust != Trust::default())
            .then_some(TrustGiven { score: Some(trust.score), surprises_7d: trust.surprises_7d }),
        evidence: (!evidence.is_empty()).then(|| evidence.clone()),
        source_ip: (!source_ip.is_loopback()).then_some(*source_ip),
    }
}

fn expected(seen: &Inspection) -> Value {
    let (tier, because) = (seen.judgement.as_str(), &seen.because);
    let Some(terms) = &seen.terms else { return json!({"tier": tier, "because": because}) };
    let groups: std::collections::BTreeSet<&String> = terms.needs.requirements.iter().flat_map(|r| &r.groups).collect();
    json!({"tier": tier, "because": because, "approvers": groups})
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::call::{CallId, Judgement};
    use crate::policy::sample::{facts, shipped, support_bot};
    use crate::workbench::suite::Suite;
    use crate::workbench::testing::Run;
    use crate::workbench::tests::bench;

    #[test]
    fn a_recorded_call_becomes_a_test_that_passes_and_names_nobody() {
        let bench = bench(shipped());
        let arguments = json!({"customerId": "c_anna", "orderId": "o1", "amountMinor": 8800, "currency": "EUR"});
        let recorded = Recorded {
            id: CallId::new(),
            at: facts().now,
            operation: "crm.refund".into(),
            principal: Arc::new(support_bot()),
            context: Arc::new(crate::call::CallContext {
                workflow: "refunds".into(),
                stage: "execute".into(),
                ..Default::default()
            }),
            arguments: Arc::new(arguments),
            facts: Some(Arc::new(facts())),
            judgement: Judgement::Medium,
            would: Vec::new(),
            policy_digest: None,
            title: String::new(),
            state: "succeeded".into(),
            note: String::new(),
        };
        let case = Case::recorded(&recorded, &bench.policies).unwrap();
        let text = draft(&bench, &recorded, &case).unwrap();
        assert!(!text.contains("c_anna") && !text.contains("ana@acme.dev") && !text.contains("\"ana\""), "{text}");
        let suite = Suite::parse(&text, Path::new("from.test.yaml")).unwrap();
        let ended = Run::default().suite(&bench, &suite);
        assert_eq!((ended.len(), &ended[0].problems), (1, &Vec::new()), "{text}");
        assert!(text.contains("\"because\":[\"refund-review\"]"), "{text}");
    }
}
