//! Where a policy's answer may turn: the comparisons with fixed values in its text. Whoever looks for the closest call
//! that would be judged otherwise tries these.

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal as PstLiteral, UnaryOp, Var};

use super::set::Policy;

/// A fixed value in a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Literal {
    /// `> 5000`
    Long(i64),
    /// `decimal("500.00")`
    Decimal(String),
    /// `== "EUR"`
    Text(String),
    /// A truth value, or whether a member is given.
    Bool(bool),
}

/// A member of the context, and a value at which some policy's answer may turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Border {
    /// `["input", "amountMinor"]`
    pub path: Vec<String>,
    /// The value it is compared with.
    pub at: Literal,
    /// The policy only asks whether the member is given.
    pub presence: bool,
}

/// The borders in a policy's text, each once, in its order.
#[must_use]
pub fn borders(policy: &Policy) -> Vec<Border> {
    let mut found = Vec::new();
    let Ok(tree) = policy.cedar.to_pst() else { return found };
    for clause in tree.body().clauses() {
        let (Clause::When(expr) | Clause::Unless(expr)) = clause;
        look(expr, &mut found);
    }
    found
}

fn look(expr: &Expr, found: &mut Vec<Border>) {
    if let Some(border) = border(expr)
        && border.path.first().is_some_and(|first| first != "approval")
        && !found.contains(&border)
    {
        found.push(border);
    }
    match expr {
        path if context_path(path).is_some() => {}
        Expr::UnaryOp { expr, .. }
        | Expr::GetAttr { expr, .. }
        | Expr::HasAttr { expr, .. }
        | Expr::Like { expr, .. }
        | Expr::Is { expr, .. } => look(expr, found),
        Expr::BinaryOp { left, right, .. } => [left, right].into_iter().for_each(|e| look(e, found)),
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            [cond, then_expr, else_expr].into_iter().for_each(|e| look(e, found));
        }
        Expr::Set(all) => all.iter().for_each(|e| look(e, found)),
        Expr::Record(all) => all.values().for_each(|e| look(e, found)),
        _ => {}
    }
}

fn border(expr: &Expr) -> Option<Border> {
    match expr {
        Expr::BinaryOp { op: BinaryOp::And | BinaryOp::Or | BinaryOp::In, .. } => None,
        Expr::BinaryOp { left, right, .. } => {
            let (path, at) =
                context_path(left).zip(literal(right)).or_else(|| context_path(right).zip(literal(left)))?;
            Some(Border { path, at, presence: false })
        }
        Expr::HasAttr { expr: of, attrs } => {
            let mut path = members(of)?;
            path.extend(attrs.iter().map(ToString::to_string));
            Some(Border { path, at: Literal::Bool(false), presence: true })
        }
        // A truth value by itself turns at either value.
        Expr::GetAttr { .. } => Some(Border { path: context_path(expr)?, at: Literal::Bool(true), presence: false }),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<Literal> {
    match expr {
        Expr::Literal(PstLiteral::Long(n)) => Some(Literal::Long(*n)),
        Expr::Literal(PstLiteral::String(s)) => Some(Literal::Text(s.to_string())),
        Expr::Literal(PstLiteral::Bool(b)) => Some(Literal::Bool(*b)),
        Expr::UnaryOp { op: UnaryOp::Neg, expr } => match literal(expr)? {
            Literal::Long(n) => n.checked_neg().map(Literal::Long),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOp::Decimal, expr } => match &**expr {
            Expr::Literal(PstLiteral::String(s)) => Some(Literal::Decimal(s.to_string())),
            _ => None,
        },
        _ => None,
    }
}

/// The members after `context`.
fn members(expr: &Expr) -> Option<Vec<String>> {
    match expr {
        Expr::Var(Var::Context) => Some(Vec::new()),
        Expr::GetAttr { expr, attr } => {
            let mut all = members(expr)?;
            all.push(attr.to_string());
            Some(all)
        }
        _ => None,
    }
}

/// As [`members`], for a value: a path of at least two.
fn context_path(expr: &Expr) -> Option<Vec<String>> {
    members(expr).filter(|p| p.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::loaded;

    #[test]
    fn borders_are_the_values_that_conditions_compare_with() {
        let set = loaded(
            "@id(\"p\") permit(principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
             when { context.input.amountMinor > 5000 || 7 < context.budget.worstPct || context.history.firstTimeTarget }\n\
             unless { context.input has reason && context.input.currency == \"EUR\" };",
        );
        let found: Vec<String> = borders(&set.policies()[0])
            .iter()
            .map(|b| format!("{} {:?}{}", b.path.join("."), b.at, if b.presence { " given" } else { "" }))
            .collect();
        let want = [
            "input.amountMinor Long(5000)",
            "input.amountMinor Bool(true)",
            "budget.worstPct Long(7)",
            "budget.worstPct Bool(true)",
            "history.firstTimeTarget Bool(true)",
            "input.reason Bool(false) given",
            "input.currency Text(\"EUR\")",
            "input.currency Bool(true)",
        ];
        assert_eq!(found, want);
    }
}
