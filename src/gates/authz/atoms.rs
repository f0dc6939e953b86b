//! Why a policy does or does not apply to a question: the smallest conditions that settle it, with the values found.

use std::str::FromStr;

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, UnaryOp, Var};
use cedar_policy::{
    Entities, EvalResult, Expression, PrincipalConstraint, Request, ResourceConstraint, eval_expression,
};

use super::Asking;
use super::ask::decide;
use crate::call::{Fault, Tier};
use crate::policy::Policy;

/// Whether a policy applies, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It applies; these conditions hold. Empty for a policy without conditions.
    Yes(Vec<String>),
    /// It does not; these conditions, as they stand here, keep it from it.
    No(Vec<String>),
    /// It could not be evaluated, for this reason.
    Broken(String),
}

/// A question at the lowest rung, with the means to evaluate parts of policies.
struct Eye<'a> {
    request: Request,
    entities: &'a Entities,
}

/// How a policy takes the question when nothing is approved.
pub(super) fn matched(asking: &Asking<'_>, policy: &Policy) -> Result<Match, Fault> {
    let (request, entities) = asking.at(Tier::Low)?;
    let eye = Eye { request, entities };
    if !eye.in_scope(policy)? {
        return Ok(Match::No(vec![scope(policy)]));
    }
    let tree = policy.cedar.to_pst().map_err(|e| Fault::caused("a policy has no syntax tree", e))?;
    let mut held = Vec::new();
    for clause in tree.body().clauses() {
        let (expr, wanted) = match clause {
            Clause::When(e) => (e, true),
            Clause::Unless(e) => (e, false),
        };
        match eye.truth(expr) {
            Err(why) => return Ok(Match::Broken(why)),
            Ok(truth) => {
                let mut found = Vec::new();
                eye.because(expr, truth, &mut found);
                if truth != wanted {
                    return Ok(Match::No(found));
                }
                held.extend(found);
            }
        }
    }
    Ok(Match::Yes(held))
}

/// The scope of a policy, in its own words.
fn scope(policy: &Policy) -> String {
    let principal = match policy.cedar.principal_constraint() {
        PrincipalConstraint::Any => None,
        PrincipalConstraint::Eq(uid) => Some(format!("principal == {uid}")),
        PrincipalConstraint::In(uid) => Some(format!("principal in {uid}")),
        PrincipalConstraint::Is(kind) => Some(format!("principal is {kind}")),
        PrincipalConstraint::IsIn(kind, uid) => Some(format!("principal is {kind} in {uid}")),
    };
    let resource = match policy.cedar.resource_constraint() {
        ResourceConstraint::Any => None,
        ResourceConstraint::Eq(uid) => Some(format!("resource == {uid}")),
        ResourceConstraint::In(uid) => Some(format!("resource in {uid}")),
        ResourceConstraint::Is(kind) => Some(format!("resource is {kind}")),
        ResourceConstraint::IsIn(kind, uid) => Some(format!("resource is {kind} in {uid}")),
    };
    let all: Vec<String> = principal.into_iter().chain(resource).collect();
    format!("scope: {}", shortened(&all.join(", ")))
}

impl Eye<'_> {
    /// Whether the scope fits: the policy without its conditions, asked alone, as a permit.
    fn in_scope(&self, policy: &Policy) -> Result<bool, Fault> {
        let unfit = |e| Fault::caused("the scope of a policy could not be asked alone", e);
        let mut tree = policy.cedar.to_pst().map_err(unfit)?;
        if let cedar_policy::pst::Policy::Static(of) = &tree {
            let mut body = of.body().clone().try_with_clauses(Vec::new()).map_err(unfit)?;
            body.effect = cedar_policy::pst::Effect::Permit;
            let alone = body.try_into().map_err(|e| Fault::caused("the scope of a policy has a slot", e))?;
            tree = cedar_policy::pst::Policy::Static(alone);
        }
        let alone = cedar_policy::Policy::from_pst(tree).map_err(unfit)?;
        let set = cedar_policy::PolicySet::from_policies([alone])
            .map_err(|e| Fault::caused("the scope of a policy could not be asked alone", e))?;
        let asked = decide(&cedar_policy::Authorizer::new(), &self.request, &set, self.entities);
        Ok(asked.is_ok_and(|a| a.allowed))
    }

    fn value(&self, expr: &Expr) -> Result<EvalResult, String> {
        let parsed = Expression::from_str(&expr.to_string()).map_err(|e| e.to_string())?;
        eval_expression(&self.request, self.entities, &parsed).map_err(|e| e.to_string())
    }

    fn truth(&self, expr: &Expr) -> Result<bool, String> {
        match self.value(expr)? {
            EvalResult::Bool(truth) => Ok(truth),
            other => Err(format!("{other} is no truth value")),
        }
    }

    fn is(&self, expr: &Expr, truth: bool) -> bool {
        self.truth(expr) == Ok(truth)
    }

    /// Collects the conditions that make `expr` have this truth.
    fn because(&self, expr: &Expr, truth: bool, found: &mut Vec<String>) {
        match expr {
            Expr::UnaryOp { op: UnaryOp::Not, expr } => self.because(expr, !truth, found),
            // Both sides count where both had to be so; else the first that settles it.
            Expr::BinaryOp { op: op @ (BinaryOp::And | BinaryOp::Or), left, right } => {
                let both = truth == (*op == BinaryOp::And);
                let left_settles = self.is(left, truth);
                if both || left_settles {
                    self.because(left, truth, found);
                }
                if both || !left_settles {
                    self.because(right, truth, found);
                }
            }
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                let chosen = self.is(cond, true);
                self.because(cond, chosen, found);
                self.because(if chosen { then_expr } else { else_expr }, truth, found);
            }
            leaf => {
                let text = self.leaf(leaf, truth);
                if !found.contains(&text) && !text.starts_with("approval.") {
                    found.push(text);
                }
            }
        }
    }

    fn leaf(&self, expr: &Expr, truth: bool) -> String {
        match expr {
            Expr::BinaryOp { op, left, right } => match comparison(*op, truth) {
                Some(sign) => format!("{} {sign} {}", self.shown(left), self.shown(right)),
                None => stated(expr, truth),
            },
            Expr::HasAttr { expr: of, attrs } => {
                let path: Vec<&str> = path(of).into_iter().flatten().chain(attrs.iter().map(|a| a.as_str())).collect();
                format!("{} is {}", shortened(&path.join(".")), if truth { "given" } else { "not given" })
            }
            _ => stated(expr, truth),
        }
    }

    /// A path with the value that it has here; anything else in its own words.
    fn shown(&self, expr: &Expr) -> String {
        let text = shortened(&expr.to_string());
        match (expr, self.value(expr)) {
            (Expr::Literal(Literal::String(s)), _) => format!("\"{s}\""),
            (Expr::Literal(_), _) | (_, Err(_)) => text,
            (Expr::UnaryOp { .. }, Ok(_)) => text,
            (_, Ok(value)) => format!("{text} {}", shortened(&value.to_string())),
        }
    }
}

fn comparison(op: BinaryOp, truth: bool) -> Option<&'static str> {
    let (yes, no) = match op {
        BinaryOp::Eq => ("=", "≠"),
        BinaryOp::NotEq => ("≠", "="),
        BinaryOp::Less | BinaryOp::DecimalLessThan => ("<", "≥"),
        BinaryOp::LessEq | BinaryOp::DecimalLessEq => ("≤", ">"),
        BinaryOp::Greater | BinaryOp::DecimalGreater => (">", "≤"),
        BinaryOp::GreaterEq | BinaryOp::DecimalGreaterEq => ("≥", "<"),
        _ => return None,
    };
    Some(if truth { yes } else { no })
}

fn stated(expr: &Expr, truth: bool) -> String {
    format!("{} is {truth}", shortened(&expr.to_string()))
}

/// The members from `context` on, where the expression is such a path.
fn path(expr: &Expr) -> Option<Vec<&str>> {
    match expr {
        Expr::Var(Var::Context) => Some(vec!["context"]),
        Expr::Var(Var::Principal) => Some(vec!["principal"]),
        Expr::Var(Var::Resource) => Some(vec!["resource"]),
        Expr::GetAttr { expr, attr } => {
            let mut all = path(expr)?;
            all.push(attr.as_str());
            Some(all)
        }
        _ => None,
    }
}

/// Without what every reader knows: `context.input.amountMinor` is `amountMinor`.
fn shortened(text: &str) -> String {
    text.replace("context.input.", "").replace("context.", "").replace("Holdpoint::", "")
}
