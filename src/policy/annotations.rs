//! The closed vocabulary of annotations, read per policy.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::call::{GrantCaps, SampleRate, TOP_GRANT, duration_text};

/// The groups of `@approvers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approvers {
    /// Teams, or `workflow-owner` and `tool-owner`, which are resolved for each call.
    pub groups: Vec<String>,
    /// All of them (`a,b`), or any one (`a|b`).
    pub all: bool,
}

/// Stands for the team that owns the call's workflow.
pub const WORKFLOW_OWNER: &str = "workflow-owner";
/// Stands for the team that owns the call's tool.
pub const TOOL_OWNER: &str = "tool-owner";

/// What one policy's annotations say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// `@id`.
    pub id: Option<String>,
    /// `@reason`.
    pub reason: Option<String>,
    /// `@approvers`.
    pub approvers: Option<Approvers>,
    /// `@evidence`: kinds that must be attached.
    pub evidence: Vec<String>,
    /// `@sla`.
    pub sla: Option<Duration>,
    /// `@expires`.
    pub expires: Option<Duration>,
    /// `@window`.
    pub window: Option<Duration>,
    /// `@justify("required")`.
    pub justify: bool,
    /// `@escalate`: after how long, to whom. Data only, for now.
    pub escalate: Vec<(Duration, String)>,
    /// `@grant`: the widest grant that a reviewer may give.
    pub grant: Option<GrantCaps>,
    /// `@sample`: how many of the calls that it lets run are looked at after the fact.
    pub sample: Option<SampleRate>,
    /// `@degrade`: what to do instead. Data only, for now.
    pub degrade: Option<String>,
    /// `@severity`.
    pub severity: Option<String>,
    /// `@mode("shadow")`: asked beside the others, never enforced.
    pub shadow: bool,
}

/// Keys that belong on a forbid with an approval clause.
pub(super) const HOLD_KEYS: &[&str] =
    &["approvers", "evidence", "sla", "expires", "window", "escalate", "justify", "grant"];

/// Every key.
pub(super) const KEYS: &[&str] = &[
    "approvers",
    "degrade",
    "escalate",
    "evidence",
    "expires",
    "grant",
    "id",
    "justify",
    "mode",
    "owner",
    "reason",
    "sample",
    "severity",
    "sla",
    "ticket",
    "window",
];

impl Annotations {
    /// Takes in one annotation; says what is wrong with it.
    pub(super) fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "id" => self.id = Some(id(value)?),
            "reason" => self.reason = Some(sentence(value)?),
            "approvers" => self.approvers = Some(approvers(value)?),
            "evidence" => self.evidence = words(value, ',')?,
            "sla" => self.sla = Some(duration(value)?),
            "expires" => self.expires = Some(duration(value)?),
            "window" => self.window = Some(duration(value)?),
            "justify" if value == "required" => self.justify = true,
            "justify" => return Err("`@justify` knows one value, `required`".to_owned()),
            "escalate" => self.escalate = value.split(',').map(escalation).collect::<Result<_, _>>()?,
            "grant" => self.grant = Some(grant(value)?),
            "sample" => self.sample = Some(sample(value)?),
            "degrade" => self.degrade = Some(degrade(value)?),
            "severity" => self.severity = Some(severity(value)?),
            "mode" if value == "shadow" => self.shadow = true,
            "mode" => return Err("`@mode` knows one value, `shadow`".to_owned()),
            "owner" | "ticket" => {}
            key if key.starts_with("x_") => {}
            key => return Err(format!("`@{key}` is no annotation that Holdpoint knows")),
        }
        Ok(())
    }
}

fn id(value: &str) -> Result<String, String> {
    let starts = value.starts_with(|c: char| c.is_ascii_lowercase());
    if starts && kebab(value) { Ok(value.to_owned()) } else { Err(format!("`{value}` is no id in kebab-case")) }
}

fn kebab(word: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !word.is_empty() && word.len() <= 80 && word.chars().all(legal) && !word.ends_with('-') && !word.contains("--")
}

fn sentence(value: &str) -> Result<String, String> {
    let text = value.trim();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("`@reason` wants one sentence, which reviewers and agents will read".to_owned());
    }
    Ok(text.to_owned())
}

fn name(word: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    let word = word.trim();
    if !word.is_empty() && word.chars().all(legal) { Ok(word.to_owned()) } else { Err(format!("`{word}` is no name")) }
}

fn words(value: &str, separator: char) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for word in value.split(separator) {
        let word = name(word)?;
        if all.contains(&word) {
            return Err(format!("`{word}` stands twice"));
        }
        all.push(word);
    }
    Ok(all)
}

fn approvers(value: &str) -> Result<Approvers, String> {
    match (value.contains(','), value.contains('|')) {
        (true, true) => Err("either `a,b` (all of them) or `a|b` (any one), not both".to_owned()),
        (_, any) => Ok(Approvers { groups: words(value, if any { '|' } else { ',' })?, all: !any }),
    }
}

/// `90s`, `15m`, `4h`, `30d`.
fn duration(value: &str) -> Result<Duration, String> {
    let wrong = || format!("`{value}` is no duration such as `90s`, `15m`, `4h` or `30d`");
    let digits = value.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = value.split_at(digits);
    let size = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(size)).ok_or_else(wrong)?;
    if seconds == 0 || seconds > 3650 * 86_400 { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

fn escalation(step: &str) -> Result<(Duration, String), String> {
    let (after, to) = step.trim().split_once(':').ok_or("`@escalate` is written `10m:group,20m:group`")?;
    Ok((duration(after)?, name(to)?))
}

/// How long is demanded: what has no end is no grant.
fn grant(value: &str) -> Result<GrantCaps, String> {
    let wrong = || format!("`{value}` is no grant such as `max=1h,uses=10,sum=amountMinor:50000`");
    let (mut max, mut uses, mut sums) = (None, None, BTreeMap::new());
    for part in value.split(',') {
        let (key, bound) = part.trim().split_once('=').ok_or_else(wrong)?;
        let new = match key {
            "max" => max.replace(duration(bound)?).is_none(),
            "uses" => uses.replace(bound.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong)?).is_none(),
            "sum" => {
                let (path, most) = bound.split_once(':').ok_or_else(wrong)?;
                let path =
                    if path.starts_with('/') { path.to_owned() } else { format!("/{}", name(path)?.replace('.', "/")) };
                sums.insert(path, most.parse::<i64>().ok().filter(|n| *n >= 0).ok_or_else(wrong)?).is_none()
            }
            _ => return Err(wrong()),
        };
        if !new {
            return Err(format!("`{key}` stands twice in `{value}`"));
        }
    }
    match max {
        Some(max) if max <= TOP_GRANT => Ok(GrantCaps { max, uses, sums }),
        Some(_) => Err(format!("`max` of a grant is at most {}", duration_text(TOP_GRANT))),
        None => Err(format!("`{value}` names no `max`, such as `max=1h`: a grant has an end")),
    }
}

fn sample(value: &str) -> Result<SampleRate, String> {
    SampleRate::parse(value).ok_or_else(|| format!("`{value}` is no sample such as `2%` or `1/50`"))
}

fn degrade(value: &str) -> Result<String, String> {
    let known = |part: &str| match part.trim().split_once('=') {
        Some(("cache", age)) => duration(age).is_ok(),
        Some(("simpler", operation)) => name(operation).is_ok(),
        Some(("else", what)) => what == "handoff",
        _ => false,
    };
    if value.split(',').all(known) {
        return Ok(value.to_owned());
    }
    Err(format!("`{value}` is no fallback such as `cache=15m,simpler=op,else=handoff`"))
}

fn severity(value: &str) -> Result<String, String> {
    let known = ["info", "low", "medium", "high", "critical"];
    if known.contains(&value) {
        Ok(value.to_owned())
    } else {
        Err(format!("`@severity` is one of {}", known.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_values_are_taken_and_bad_ones_named() {
        let mut a = Annotations::default();
        for (key, value) in [
            ("id", "refund-dual"),
            ("approvers", "a,workflow-owner"),
            ("sla", "15m"),
            ("escalate", "10m:finance-managers,20m:oncall"),
            ("grant", "max=1h,uses=10,sum=amountMinor:50000"),
            ("sample", "2%"),
            ("degrade", "cache=15m,else=handoff"),
            ("x_team", "anything"),
        ] {
            assert_eq!(a.put(key, value), Ok(()), "{key}");
        }
        assert_eq!(a.sla, Some(Duration::from_secs(900)));
        assert_eq!(a.approvers, Some(Approvers { groups: vec!["a".into(), "workflow-owner".into()], all: true }));
        for (key, value) in [
            ("id", "Refund Dual"),
            ("id", "9-lives"),
            ("approvers", "a,b|c"),
            ("approvers", "a,,b"),
            ("approvers", "a,a"),
            ("sla", "15"),
            ("sla", "0m"),
            ("window", "1.5h"),
            ("escalate", "10m"),
            ("grant", "max=forever"),
            ("grant", "uses=10"),
            ("grant", "max=31d"),
            ("grant", "max=1h,uses=0"),
            ("grant", "max=1h,max=2h"),
            ("grant", "max=1h,sum=amountMinor"),
            ("grant", "max=1h,sum=amountMinor:-1"),
            ("sample", "200%"),
            ("justify", "yes"),
            ("mode", "silent"),
            ("reasn", "typo"),
            ("reason", ""),
        ] {
            assert!(a.put(key, value).is_err(), "{key} {value}");
        }
    }
}
