//! What Cedar's validator cannot know: that approval only ever helps, and that arithmetic cannot overflow.
//!
//! The ladder asks the same question with rising approval, so a policy must never turn an allow into a deny
//! when approval rises. That holds when `approval` stands only in a forbid's `unless`, and only positively.

use cedar_policy::pst::{BinaryOp, Clause, Effect, Expr, Template, UnaryOp, Var};

/// How far approval lifts a forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lift {
    /// No approval clause: nobody can release it.
    Never,
    /// `unless { context.approval.granted }`.
    Granted,
    /// `unless { context.approval.dual }`.
    Dual,
}

/// What the body of a policy shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    /// How far approval lifts it.
    pub lift: Lift,
    /// Why its use of approval is refused.
    pub approval: Option<&'static str>,
    /// Paths below `context.input` that arithmetic reads.
    pub arithmetic: Vec<Vec<String>>,
    /// Members of the context that it reads; `None` when that cannot be told.
    pub reads: Option<Vec<Vec<String>>>,
}

const APPROVAL: &str = "approval";

/// Looks at the body of a policy.
pub(super) fn body(template: &Template) -> Body {
    let mut out = Body { lift: Lift::Never, approval: None, arithmetic: Vec::new(), reads: Some(Vec::new()) };
    for clause in template.clauses() {
        let (expr, unless) = match clause {
            Clause::When(e) => (e, false),
            Clause::Unless(e) => (e, true),
        };
        let mentions = mentions(expr);
        out.approval = out.approval.or_else(|| verdict(template.effect, unless, &mentions, expr));
        if unless && mentions.approval {
            out.lift = out.lift.max(if mentions.dual { Lift::Dual } else { Lift::Granted });
        }
        arithmetic(expr, false, &mut out.arithmetic);
        if let Some(reads) = &mut out.reads
            && !context_reads(expr, reads)
        {
            out.reads = None;
        }
    }
    out
}

fn verdict(effect: Effect, unless: bool, found: &Mentions, expr: &Expr) -> Option<&'static str> {
    if found.unknown {
        return Some("this policy uses a construct that Holdpoint cannot judge");
    }
    if found.bare_context {
        return Some("`context` as a whole holds the approval, and may not be compared or stored");
    }
    match (found.approval, effect) {
        (false, _) => None,
        (true, Effect::Permit) => Some("a permit must not look at the approval"),
        (true, Effect::Forbid) if !unless => Some("`approval` may stand only in the `unless` of a forbid"),
        (true, Effect::Forbid) if !positive(expr) => {
            Some("`approval` may be used only positively: `context.approval.granted` or `.dual`, with `&&` and `||`")
        }
        (true, Effect::Forbid) => None,
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Mentions {
    approval: bool,
    dual: bool,
    bare_context: bool,
    unknown: bool,
}

/// `context.approval.granted` or `context.approval.dual`.
fn approval_leaf(expr: &Expr) -> Option<&str> {
    match path(expr)?.as_slice() {
        [first, flag @ ("granted" | "dual")] if *first == APPROVAL => Some(flag),
        _ => None,
    }
}

/// The members from `context` on, when the expression is nothing but a path into it.
fn path(expr: &Expr) -> Option<Vec<&str>> {
    match expr {
        Expr::Var(Var::Context) => Some(Vec::new()),
        Expr::GetAttr { expr, attr } => {
            let mut p = path(expr)?;
            p.push(attr.as_str());
            Some(p)
        }
        _ => None,
    }
}

/// The operands of an expression; `None` for a construct that this code does not know.
fn children(expr: &Expr) -> Option<Vec<&Expr>> {
    Some(match expr {
        Expr::Literal(_) | Expr::Var(_) => Vec::new(),
        Expr::UnaryOp { expr, .. }
        | Expr::GetAttr { expr, .. }
        | Expr::HasAttr { expr, .. }
        | Expr::Like { expr, .. } => vec![expr],
        Expr::BinaryOp { left, right, .. } => vec![left, right],
        Expr::Is { expr, in_expr, .. } => std::iter::once(expr).chain(in_expr).map(AsRef::as_ref).collect(),
        Expr::IfThenElse { cond, then_expr, else_expr } => vec![cond, then_expr, else_expr],
        Expr::Set(all) => all.iter().map(AsRef::as_ref).collect(),
        Expr::Record(all) => all.values().map(AsRef::as_ref).collect(),
        _ => return None,
    })
}

fn mentions(expr: &Expr) -> Mentions {
    let mut found = Mentions::default();
    look(expr, &mut found);
    found
}

fn look(expr: &Expr, found: &mut Mentions) {
    match expr {
        // Reached only where no member is taken: see the two arms below.
        Expr::Var(Var::Context) => found.bare_context = true,
        Expr::GetAttr { expr: of, attr } if matches!(**of, Expr::Var(Var::Context)) => {
            found.approval |= attr == APPROVAL;
        }
        Expr::HasAttr { expr: of, attrs } if matches!(**of, Expr::Var(Var::Context)) => {
            found.approval |= attrs.first() == APPROVAL;
        }
        _ => {
            found.dual |= approval_leaf(expr) == Some("dual");
            match children(expr) {
                Some(all) => all.into_iter().for_each(|e| look(e, found)),
                None => found.unknown = true,
            }
        }
    }
}

/// Whether the expression can only rise when the approval rises.
fn positive(expr: &Expr) -> bool {
    let found = mentions(expr);
    if !found.approval {
        return !found.unknown && !found.bare_context;
    }
    match expr {
        Expr::BinaryOp { op: BinaryOp::And | BinaryOp::Or, left, right } => positive(left) && positive(right),
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            !mentions(cond).approval && positive(cond) && positive(then_expr) && positive(else_expr)
        }
        _ => approval_leaf(expr).is_some(),
    }
}

/// Collects the paths below `context.input` that stand inside arithmetic.
fn arithmetic(expr: &Expr, inside: bool, found: &mut Vec<Vec<String>>) {
    let inside = inside
        || matches!(
            expr,
            Expr::BinaryOp { op: BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul, .. }
                | Expr::UnaryOp { op: UnaryOp::Neg, .. }
        );
    if let (true, Some(p)) = (inside, path(expr))
        && let Some(("input", rest)) = p.split_first().map(|(first, rest)| (*first, rest))
    {
        found.push(rest.iter().map(|s| (*s).to_owned()).collect());
        return;
    }
    children(expr).into_iter().flatten().for_each(|e| arithmetic(e, inside, found));
}

/// Collects the paths into `context` that are read; false when they cannot be told.
fn context_reads(expr: &Expr, found: &mut Vec<Vec<String>>) -> bool {
    let whole = match expr {
        Expr::HasAttr { expr: of, attrs } => path(of).map(|mut p| {
            p.extend(attrs.iter().map(|a| a.as_str()));
            p
        }),
        _ => path(expr),
    };
    if let Some(p) = whole {
        found.push(p.into_iter().map(str::to_owned).collect());
        return true;
    }
    children(expr).is_some_and(|all| all.into_iter().all(|e| context_reads(e, found)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cedar_policy::Policy;

    fn looked(text: &str) -> Body {
        body(Policy::parse(None, text).unwrap().to_pst().unwrap().body())
    }

    #[test]
    fn approval_is_taken_only_positively_in_the_unless_of_a_forbid() {
        for good in [
            "unless { context.approval.granted }",
            "unless { context.approval.dual || (context.approval.granted && context.input.n < 3) }",
            "unless { if context.input.n > 3 then context.approval.dual else context.approval.granted }",
            "when { context.input.n > 3 }",
            "unless { context[\"approval\"][\"granted\"] }",
        ] {
            assert_eq!(looked(&format!("forbid(principal, action, resource) {good};")).approval, None, "{good}");
        }
        for bad in [
            "when { context.approval.granted }",
            "when { !context.approval.granted }",
            "unless { !context.approval.granted }",
            "unless { context.approval.granted == false }",
            "unless { context.approval.granted == true }",
            "unless { context.approval == {granted: false, dual: false} }",
            "unless { context has approval }",
            "unless { context has approval.granted }",
            "unless { context == {a: 1} }",
            "unless { [context].isEmpty() }",
            "unless { if context.approval.granted then false else true }",
            "unless { {x: context.approval}.x.granted }",
            "unless { [true].contains(context.approval.granted) }",
        ] {
            assert!(looked(&format!("forbid(principal, action, resource) {bad};")).approval.is_some(), "{bad}");
        }
        for bad in ["when { context.approval.granted }", "unless { context.approval.granted }"] {
            assert!(looked(&format!("permit(principal, action, resource) {bad};")).approval.is_some(), "{bad}");
        }
    }

    #[test]
    fn the_lift_is_the_highest_that_is_asked_for() {
        let lift = |c: &str| looked(&format!("forbid(principal, action, resource) {c};")).lift;
        assert_eq!(lift("when { context.input.n > 3 }"), Lift::Never);
        assert_eq!(lift("unless { context.approval.granted }"), Lift::Granted);
        assert_eq!(lift("unless { context.approval.dual }"), Lift::Dual);
    }

    #[test]
    fn arithmetic_on_arguments_is_found_however_deep() {
        let b = looked("forbid(principal, action, resource) when { 1 + (context.input.a.b * 2) > context.input.c };");
        assert_eq!(b.arithmetic, [["a", "b"]]);
        let b = looked("forbid(principal, action, resource) when { context.budget.worstPct + 1 > context.input.c };");
        assert!(b.arithmetic.is_empty());
    }
}
