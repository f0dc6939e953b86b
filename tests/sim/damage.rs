//! Bits that flip, files that are cut, swapped or put back: found and named, or without any effect.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdpoint::clock::{Clock, ManualClock};
use holdpoint::journal::{ReadError, segments, verify_with};
use holdpoint::store::{OpenError, Options, Recovery, Store};

use crate::model::DAY;
use crate::world::{Dice, Place, START, World, copy, scratch, time};

fn options() -> Options {
    Options { segment_bytes: 40_000, preallocate: 4096, ..Options::default() }
}

/// A state directory in which much has happened and all is over, and what its store tells.
fn base(steps: usize) -> (tempfile::TempDir, String) {
    let dir = scratch();
    let mut place = Place::at(dir.path(), options());
    let mut world = World::new(&mut place, 7, false);
    (0..steps).for_each(|_| world.step());
    world.drain();
    let said = world.dump();
    place.store = None;
    (dir, said)
}

fn open(dir: &Path) -> Result<(Store, Recovery), OpenError> {
    Store::open(dir, Arc::new(ManualClock::at(time(START + 100 * DAY))), options())
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
    found.sort();
}

fn flip(path: &Path, at: usize, bit: u32) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

#[test]
fn flipped_bits_in_the_index_change_nothing_that_is_told() {
    let count = crate::wanted("HOLDPOINT_FLIPS").unwrap_or(15);
    let (base, _) = base(150);
    // What is told after one more start, by an index that is whole.
    let told = |dir: &Path| {
        let mut place = Place::at(dir, options());
        place.clock.set_wall(time(START + 100 * DAY));
        World::new(&mut place, 7, false).dump()
    };
    let whole = scratch();
    copy(base.path(), whole.path());
    let expected = told(whole.path());
    let mut dice = Dice(11);
    let mut rebuilt = 0;
    for n in 0..count {
        let dir = scratch();
        copy(base.path(), dir.path());
        let mut index = Vec::new();
        files(&dir.path().join("index"), &mut index);
        index.retain(|f| fs::metadata(f).unwrap().len() > 0);
        let file = index[dice.below(index.len())].clone();
        // Most of a file of sled is zeros; rather hit something.
        let bytes = fs::read(&file).unwrap();
        let used: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] != 0).collect();
        let at = if used.is_empty() || n % 4 == 0 { dice.below(bytes.len()) } else { used[dice.below(used.len())] };
        let bit = dice.below(8) as u32;
        flip(&file, at, bit);
        println!("flip {n}: bit {bit} of byte {at} in {}", file.file_name().unwrap().display());
        assert_eq!(told(dir.path()), expected, "another story");
        rebuilt += usize::from(dir.path().join("index.bad1").exists());
    }
    println!("{count} flips, the index was set aside and rebuilt {rebuilt} times");
}

/// Bytes of a segment that carry records.
fn used(path: &Path) -> usize {
    fs::read(path).unwrap().iter().rposition(|b| *b != 0).map_or(0, |n| n + 1)
}

#[test]
fn flipped_bits_in_the_journal_are_found_and_named() {
    let count = crate::wanted("HOLDPOINT_FLIPS").unwrap_or(15);
    let (base, _) = base(150);
    let mut dice = Dice(13);
    let (mut named, mut torn) = (0, 0);
    for _ in 0..count {
        let dir = scratch();
        copy(base.path(), dir.path());
        let all = segments(&dir.path().join("journal")).unwrap();
        let last = all.len() - 1;
        let n = dice.below(all.len());
        let at = dice.below(used(&all[n].path));
        flip(&all[n].path, at, dice.below(8) as u32);
        let where_ = format!("byte {at} of {}", all[n].name());
        let Err(ReadError::Bad(bad)) = holdpoint::audit::verify(dir.path()) else {
            panic!("{where_}: a flipped bit was not found");
        };
        assert_eq!(bad.segment, all[n].name(), "{where_}: {bad}");
        assert!(bad.offset <= at as u64 && bad.seq >= all[n].first, "{where_}: {bad}");
        if bad.torn {
            // Nobody can tell it from a torn write by the journal alone; what was signed can.
            assert_eq!(n, last, "{where_}: {bad}");
            let (_, recovery) = open(dir.path()).unwrap();
            assert!(recovery.rollback.is_some() && recovery.torn_bytes > 0, "{where_}: {recovery:?}");
            torn += 1;
        } else {
            match open(dir.path()) {
                Err(OpenError::Damaged(found)) => assert_eq!(found, bad, "{where_}"),
                other => panic!("{where_}: it opens: {:?}", other.map(|o| o.1)),
            }
            named += 1;
        }
    }
    println!("{count} flips: {named} refused and named, {torn} in the last batch, told as lost records");
}

#[test]
fn a_journal_that_was_cut_or_put_back_is_told_even_without_the_index() {
    let (base, _) = base(150);
    let older = scratch();
    copy(&base.path().join("journal"), older.path());
    {
        let mut place = Place::at(base.path(), options());
        place.clock.set_wall(time(START + 100 * DAY));
        place.next += 1 << 100;
        let mut world = World::new(&mut place, 8, false);
        (0..20).for_each(|_| world.step());
    }
    for index_goes in [false, true] {
        for cut in [false, true] {
            let dir = scratch();
            copy(base.path(), dir.path());
            let journal = dir.path().join("journal");
            if cut {
                let last = segments(&journal).unwrap().pop().unwrap().path;
                let mut starts = Vec::new();
                verify_with(&journal, |f| starts.push(f.offset)).unwrap();
                let end = starts[starts.len() - 3];
                fs::OpenOptions::new().write(true).open(last).unwrap().set_len(end).unwrap();
            } else {
                fs::remove_dir_all(&journal).unwrap();
                copy(older.path(), &journal);
            }
            if index_goes {
                fs::remove_dir_all(dir.path().join("index")).unwrap();
            }
            assert!(holdpoint::audit::verify(dir.path()).is_ok(), "what is there is in order");
            let (_, recovery) = open(dir.path()).unwrap();
            let told = recovery.rollback.clone().unwrap_or_default();
            assert!(told.contains("rollback detected"), "cut: {cut}, without index: {index_goes}: {recovery:?}");
            assert_eq!(recovery.records_lost > 0, !index_goes);
        }
    }
}

#[test]
fn records_in_another_order_are_found_and_named() {
    let (base, _) = base(60);
    let journal = base.path().join("journal");
    let mut frames = Vec::new();
    verify_with(&journal, |f| frames.push((f.seq, f.offset, f.size))).unwrap();
    let first = segments(&journal).unwrap().remove(0);
    // Two neighbours of the first segment change places.
    let (a, b) = (frames[4], frames[5]);
    let bytes = fs::read(&first.path).unwrap();
    let part = |f: (u64, u64, u64)| bytes[f.1 as usize..(f.1 + f.2) as usize].to_vec();
    let mut swapped = bytes[..a.1 as usize].to_vec();
    swapped.extend(part(b));
    swapped.extend(part(a));
    swapped.extend(&bytes[(b.1 + b.2) as usize..]);
    fs::write(&first.path, swapped).unwrap();
    let Err(ReadError::Bad(bad)) = holdpoint::audit::verify(base.path()) else { panic!("not found") };
    assert_eq!((bad.seq, bad.offset, bad.torn, bad.segment.clone()), (a.0, a.1, false, first.name()), "{bad}");
    assert!(matches!(open(base.path()), Err(OpenError::Damaged(found)) if found == bad));
}

#[test]
fn a_thousand_holds_are_all_there_after_a_restart() {
    let dir = scratch();
    let mut place = Place::at(dir.path(), Options { segment_bytes: 64 << 20, ..options() });
    let held: Vec<_> = {
        let mut world = World::new(&mut place, 9, false);
        (0..1000).map(|n| world.hold(n)).collect()
    };
    let killed = scratch();
    copy(dir.path(), killed.path());
    let (store, recovery) =
        Store::open(killed.path(), place.clock.clone(), Options { segment_bytes: 64 << 20, ..options() }).unwrap();
    // Not more than there is to read, and a start that reads it once.
    assert!(recovery.replayed <= 1100, "{recovery:?}");
    for r in &held {
        let found = place.block(store.get(r.id)).unwrap().expect("a hold is gone");
        assert_eq!((found.state, found.version, found.expires), (r.state, r.version, r.expires));
    }
    let mut world = World::new(&mut place, 9, false);
    for r in held.iter().step_by(50) {
        let approved = world.approve(&store, r);
        assert!(approved.people() == 1, "{approved:?}");
    }
    assert_eq!(place.clock.now(), time(START));
}
