//! I12, I14: what retention took was old, was announced, and no open call needed it.

use std::collections::BTreeMap;

use super::fold::Folded;
use super::{Findings, History, KEEP, is_final, list, number, text};

pub fn check(history: &History, folded: &Folded, found: &mut Findings) {
    // Each announcement with the first record that stays.
    let announced: Vec<_> = history
        .lines
        .iter()
        .filter(|l| text(&l.event, "/note/kind") == "journal.shortened")
        .map(|l| (l, number(&l.event, "/note/more/first_seq")))
        .collect();
    for line in history.lines.iter().take_while(|l| l.seq < history.first) {
        let note = announced.iter().find(|(_, first)| *first > line.seq);
        let Some((note, _)) = note else {
            found.add("I14", format!("record {} is gone, and no record says so", line.seq));
            continue;
        };
        found.check(note.at.since(line.at) >= KEEP * 3, "I14", || format!("record {} was taken too early", line.seq));
    }
    let when: BTreeMap<u64, usize> = history.lines.iter().enumerate().map(|(i, l)| (l.seq, i)).collect();
    for (note, first) in announced.iter().filter(|(_, first)| *first <= history.first) {
        found.check(when.contains_key(first), "I14", || format!("record {first}, which stays, is not there"));
        for call in folded.calls.values() {
            let Some(then) = call.versions.iter().rfind(|v| v.seq < note.seq).filter(|v| !is_final(v.state())) else {
                continue;
            };
            let payloads = [number(&then.record, "/request/body/seq"), number(&then.record, "/request/arguments/seq")];
            let evidence = list(&then.record, "/evidence").iter().map(|e| number(e, "/content/seq"));
            let gone = payloads.into_iter().chain(evidence).find(|seq| *seq > 0 && seq < first);
            found.check(gone.is_none(), "I12", || {
                format!("{} was {}, and record {gone:?}, which it needs, was taken", call.id, then.state())
            });
        }
    }
}
