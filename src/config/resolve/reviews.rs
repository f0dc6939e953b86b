//! Holds and reviews: clocks, caps, and who is told of a hold that nobody decides.

use std::time::Duration;

use crate::call::{After, Ladder, Rung, is_hidden};

use super::super::units;
use super::super::used::ReviewRules;
use super::{Ctx, file};

/// Longest name of those who are told, in characters.
const NAME: usize = 100;

pub(super) fn reviews(ctx: &mut Ctx<'_>, r: &file::Reviews) -> ReviewRules {
    let minutes = |m: u64| Duration::from_secs(60 * m);
    let mut clocks = |tier: &str, given: [Option<&String>; 3], defaults: (u64, u64, u64)| {
        let at = |key: &str| format!("/reviews/{tier}/{key}");
        let [sla, expires, window] = given;
        (
            ctx.duration(&at("sla"), sla, minutes(defaults.0)),
            ctx.duration(&at("expires"), expires, minutes(defaults.1)),
            ctx.duration(&at("window"), window, minutes(defaults.2)),
        )
    };
    let (m, h) = (r.medium.as_ref(), r.high.as_ref());
    let of_medium =
        [m.and_then(|m| m.sla.as_ref()), m.and_then(|m| m.expires.as_ref()), m.and_then(|m| m.window.as_ref())];
    let of_high =
        [h.and_then(|h| h.sla.as_ref()), h.and_then(|h| h.expires.as_ref()), h.and_then(|h| h.window.as_ref())];
    let medium = clocks("medium", of_medium, (15, 240, 240));
    let high = clocks("high", of_high, (10, 30, 30));
    let longest = medium.1.max(high.1);
    let shortest = (medium.0.min(high.0), longest);
    let escalate =
        Ladder { rungs: r.escalate.iter().enumerate().filter_map(|(i, e)| rung(ctx, i, e, shortest)).collect() };
    let caps = r.max_held.as_ref();
    ReviewRules {
        url: r.url.clone().map(|u| u.trim_end_matches('/').to_owned()),
        inline_wait: ctx.duration("/reviews/inline_wait", r.inline_wait.as_ref(), Duration::from_secs(3)),
        mrtr_poll: r.mrtr_poll,
        medium,
        high,
        escalate,
        step_up: h.is_some_and(|h| h.step_up == Some(file::StepUp::Oidc)),
        max_held: (caps.and_then(|c| c.per_agent).unwrap_or(100), caps.and_then(|c| c.total).unwrap_or(10_000)),
    }
}

/// One rung. `sla` is the shortest of the tiers' and `expires` the longest: what comes later than that never comes.
fn rung(ctx: &mut Ctx<'_>, i: usize, e: &file::Escalate, (sla, expires): (Duration, Duration)) -> Option<Rung> {
    let at = |key: &str| format!("/reviews/escalate/{i}/{key}");
    let after = ctx.ok(&at("after"), after(&e.after));
    if after.is_some_and(|after| after.from(sla) >= expires) {
        ctx.err(at("after"), "every hold has expired by then: nobody would be told");
    }
    let named = !e.to.trim().is_empty() && e.to.chars().count() <= NAME && !e.to.chars().any(is_hidden);
    if !named {
        ctx.err(at("to"), format!("must be a name of 1 to {NAME} visible characters"));
    }
    Some(Rung { after: after?, text: e.after.clone(), to: e.to.clone() }).filter(|_| named)
}

/// `2x`, `1.5x`, `20m`.
fn after(text: &str) -> Result<After, String> {
    let Some(times) = text.strip_suffix('x') else { return units::duration(text).map(After::Time) };
    let (whole, part) = times.split_once('.').unwrap_or((times, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let thousandths = format!("{whole}{part:0<3}");
    let good = !whole.is_empty() && part.len() <= 3 && digits(whole) && digits(part);
    let number = thousandths.parse().ok().filter(|n| good && (1..=1_000_000).contains(n));
    number
        .map(After::Sla)
        .ok_or_else(|| format!("`{text}` is neither times the `sla`, such as `2x`, nor a time such as `20m`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_times_or_multiples() {
        for (text, wanted) in [("1x", 1000), ("1.5x", 1500), ("0.25x", 250), ("12x", 12_000)] {
            assert_eq!(after(text), Ok(After::Sla(wanted)), "{text}");
        }
        assert_eq!(after("20m"), Ok(After::Time(Duration::from_secs(1200))));
        for wrong in ["", "x", "-1x", "1.2345x", "0x", "1,5x", "20", "1e3x"] {
            assert!(after(wrong).is_err(), "{wrong}");
        }
    }
}
