//! The context of a question, built by hand from the one parse of the arguments: declared members only.

use cedar_policy::{Context, RestrictedExpression as Expr};
use serde_json::{Map, Number, Value};

use super::Question;
use super::entities::{Kind, text, texts, uid};
use super::slice::Wants;
use crate::call::{Code, Facts, Fault, History, Meter, Refusal, Tier, Trust, Violation};
use crate::policy::input::{InputType, Member, Record};

type Pairs = Vec<(String, Expr)>;

/// Everything but the approval, as far as the policies read it.
pub(super) fn build(wants: &Wants, input: &Record, q: &Question<'_>) -> Result<Context, Refusal> {
    let mut all = Pairs::new();
    if wants.group("input") {
        all.push(("input".to_owned(), record(arguments(wants, input, q.arguments)?)?));
    }
    if wants.group("call") {
        all.push(("call".to_owned(), record(call(wants, q)?)?));
    }
    if wants.group("budget") {
        all.push(("budget".to_owned(), record(budget(wants, q.facts)?)?));
    }
    if wants.group("history") {
        all.push(("history".to_owned(), record(history(&q.facts.history))?));
    }
    if wants.group("trust") {
        all.push(("trust".to_owned(), record(trust(q.facts.trust))?));
    }
    Context::from_pairs(all).map_err(|e| Fault::caused("a context could not be built", e).into())
}

/// The approval at each rung.
pub(super) fn approvals() -> Result<Vec<(Tier, Context)>, Fault> {
    let at = |tier: Tier| {
        let flags = vec![
            ("granted".to_owned(), Expr::new_bool(tier >= Tier::Medium)),
            ("dual".to_owned(), Expr::new_bool(tier >= Tier::High)),
        ];
        let context = Context::from_pairs([("approval".to_owned(), record(flags)?)]);
        Ok((tier, context.map_err(|e| Fault::caused("an approval could not be built", e))?))
    };
    [Tier::Low, Tier::Medium, Tier::High].into_iter().map(at).collect()
}

fn record(pairs: Pairs) -> Result<Expr, Fault> {
    Expr::new_record(pairs).map_err(|e| Fault::caused("a record could not be built", e))
}

fn long(value: i64) -> Expr {
    Expr::new_long(value)
}

fn call(wants: &Wants, q: &Question<'_>) -> Result<Pairs, Fault> {
    let (p, at, f) = (q.principal, q.context, q.facts);
    let mut all = Pairs::new();
    let mut put = |name: &str, value: &dyn Fn() -> Result<Option<Expr>, Fault>| {
        if wants.member("call", name)
            && let Some(value) = value()?
        {
            all.push((name.to_owned(), value));
        }
        Ok::<(), Fault>(())
    };
    put("workflow", &|| Ok(Some(text(&at.workflow))))?;
    put("stage", &|| Ok(Some(text(&at.stage))))?;
    put("step", &|| Ok(at.step.as_deref().map(text)))?;
    put("onBehalfOf", &|| p.acting_for.as_deref().map(|u| uid(Kind::User, u).map(Expr::new_entity_uid)).transpose())?;
    put("now", &|| Ok(Some(datetime(f.now))))?;
    put("hourUtc", &|| Ok(Some(long(f.now.hour_utc()))))?;
    put("weekday", &|| Ok(Some(long(f.now.weekday()))))?;
    put("evidence", &|| Ok(Some(texts(&f.evidence))))?;
    put("sourceIp", &|| Ok(Some(Expr::new_ip(f.source_ip.to_string()))))?;
    Ok(all)
}

pub(super) fn datetime(at: crate::call::Timestamp) -> Expr {
    Expr::new_datetime(at.to_string())
}

fn budget(wants: &Wants, f: &Facts) -> Result<Pairs, Fault> {
    let b = &f.budget;
    let mut all = Pairs::new();
    for (name, meter) in [("step", &b.step), ("run", &b.run), ("user", &b.user), ("org", &b.org)] {
        if wants.member("budget", name) {
            all.push((name.to_owned(), meter_record(meter)?));
        }
    }
    all.push(("worstPct".to_owned(), long(b.worst_pct())));
    Ok(all)
}

fn meter_record(meter: &Meter) -> Result<Expr, Fault> {
    let mut all = vec![("usedPct".to_owned(), long(meter.used_pct))];
    all.extend(meter.remaining_minor.map(|left| ("remainingMinor".to_owned(), long(left))));
    record(all)
}

fn history(h: &History) -> Pairs {
    vec![
        ("callsThisRun".to_owned(), long(h.calls_this_run)),
        ("callsLastHour".to_owned(), long(h.calls_last_hour)),
        ("deniedLastHour".to_owned(), long(h.denied_last_hour)),
        ("sumMinorToday".to_owned(), long(h.sum_minor_today)),
        ("firstTimeTarget".to_owned(), Expr::new_bool(h.first_time_target)),
    ]
}

fn trust(t: Trust) -> Pairs {
    vec![("score".to_owned(), long(t.score)), ("surprises7d".to_owned(), long(t.surprises_7d))]
}

fn arguments(wants: &Wants, declared: &Record, arguments: &Value) -> Result<Pairs, Refusal> {
    let none = Map::new();
    let given = arguments.as_object().unwrap_or(&none);
    let wanted = |name: &str| wants.member("input", name) || wants.member("input", &format!("{name}_len"));
    members(declared, given, "", &wanted)
}

/// The declared members of an object. What is not declared does not exist for policies; null is absence.
fn members(
    declared: &Record,
    given: &Map<String, Value>,
    path: &str,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Pairs, Refusal> {
    let mut all = Pairs::new();
    for (name, member) in declared.iter().filter(|(name, _)| wanted(name)) {
        let here = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
        match given.get(name) {
            None | Some(Value::Null) if member.required => return Err(invalid(&here, "required", "is missing")),
            None | Some(Value::Null) => {}
            Some(value) => put(&mut all, name, member, value, &here)?,
        }
    }
    Ok(all)
}

fn put(all: &mut Pairs, name: &str, member: &Member, value: &Value, path: &str) -> Result<(), Refusal> {
    if let (true, Value::Array(items)) = (member.has_len, value) {
        let len = i64::try_from(items.len()).unwrap_or(i64::MAX);
        all.push((format!("{name}_len"), long(len)));
    }
    all.push((name.to_owned(), typed(&member.ty, value, path)?));
    Ok(())
}

fn typed(ty: &InputType, value: &Value, path: &str) -> Result<Expr, Refusal> {
    match (ty, value) {
        (InputType::String, Value::String(s)) => Ok(text(s)),
        (InputType::Bool, Value::Bool(b)) => Ok(Expr::new_bool(*b)),
        (InputType::Long, Value::Number(n)) => {
            integer(n).map(long).ok_or_else(|| invalid(path, "type", "is no integer of 64 bits"))
        }
        (InputType::Decimal, Value::Number(n)) => decimal(n)
            .map(Expr::new_decimal)
            .ok_or_else(|| invalid(path, "type", "is no number with at most four decimal places")),
        (InputType::Record(inner), Value::Object(given)) => Ok(record(members(inner, given, path, &|_| true)?)?),
        (InputType::Set(of), Value::Array(items)) => {
            let items = items.iter().enumerate().map(|(i, item)| typed(of, item, &format!("{path}/{i}")));
            Ok(Expr::new_set(items.collect::<Result<Vec<_>, _>>()?))
        }
        _ => Err(invalid(path, "type", "has not the declared type")),
    }
}

fn invalid(pointer: &str, keyword: &str, what: &str) -> Refusal {
    let violation =
        Violation { pointer: pointer.to_owned(), keyword: keyword.to_owned(), message: format!("`{pointer}` {what}") };
    let text = "an argument cannot be represented for policy, so the call was refused";
    Refusal::new(Code::InvalidArguments, text).with_errors(vec![violation])
}

/// JSON Schema counts `5.0` as an integer.
fn integer(n: &Number) -> Option<i64> {
    n.as_i64().or_else(|| {
        let whole = n.as_f64().filter(|f| f.fract() == 0.0)?;
        format!("{whole:.0}").parse().ok().filter(|_| n.as_u64().is_none())
    })
}

/// The number in Cedar's notation, when it is exact there: four places, and 15 digits before them at most.
fn decimal(n: &Number) -> Option<String> {
    let text = match (n.as_i64(), n.as_u64()) {
        (Some(i), _) => format!("{i}.0"),
        (None, Some(_)) => return None,
        (None, None) => format!("{:?}", n.as_f64()?),
    };
    let text = if text.contains(['e', 'E']) { format!("{}", n.as_f64()?) } else { text };
    let (whole, places) = text.split_once('.').unwrap_or((text.as_str(), "0"));
    let scaled: i128 = format!("{whole}{places:0<4}").parse().ok().filter(|_| places.len() <= 4)?;
    i64::try_from(scaled).ok().map(|_| format!("{whole}.{places}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_number_becomes_a_decimal_only_when_nothing_is_lost() {
        for (from, to) in [
            ("1", Some("1.0")),
            ("12.5", Some("12.5")),
            ("-0.0001", Some("-0.0001")),
            ("1e3", Some("1000.0")),
            ("0.00001", None),
            ("0.30000000000000004", None),
            ("1e300", None),
            ("922337203685477", Some("922337203685477.0")),
            ("922337203685478", None),
            ("9223372036854775807", None),
        ] {
            assert_eq!(decimal(&number(from)).as_deref(), to, "{from}");
        }
    }

    #[test]
    fn an_integer_stays_the_integer_that_was_written() {
        for (from, to) in
            [("5", Some(5)), ("5.0", Some(5)), ("5.5", None), ("9223372036854775808", None), ("1e30", None)]
        {
            assert_eq!(integer(&number(from)), to, "{from}");
        }
    }
}
