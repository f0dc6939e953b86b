//! The hash tree over the journal (RFC 6962, section 2; RFC 9162, section 2.1): roots, and proofs that a record is in
//! it or that one tree begins with another. Sans-io. The data of leaf `n` is the chain hash of record `n + 1`.

use aws_lc_rs::digest::{Context, SHA256};

use crate::call::Digest;

fn hash(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Digest::from_bytes(out)
}

/// The hash of a leaf.
#[must_use]
pub fn leaf(chain_hash: &Digest) -> Digest {
    hash(&[&[0], chain_hash.as_bytes()])
}

fn node(left: &Digest, right: &Digest) -> Digest {
    hash(&[&[1], left.as_bytes(), right.as_bytes()])
}

/// A tree that only grows: its size, and the roots of the full subtrees that it is made of, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Digest>,
}

impl Frontier {
    /// From what [`Frontier::parts`] gave; `None` when that cannot be a tree.
    #[must_use]
    pub fn of(size: u64, roots: Vec<Digest>) -> Option<Self> {
        (u32::try_from(roots.len()) == Ok(size.count_ones())).then_some(Self { size, roots })
    }

    /// Its size and the roots of its full subtrees.
    #[must_use]
    pub fn parts(&self) -> (u64, &[Digest]) {
        (self.size, &self.roots)
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the record with this chain hash.
    pub fn push(&mut self, chain_hash: &Digest) {
        let mut new = leaf(chain_hash);
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                new = node(&left, &new);
            }
        }
        self.roots.push(new);
        self.size += 1;
    }

    /// The root; of an empty tree the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut rest = self.roots.iter().rev();
        let Some(last) = rest.next() else { return hash(&[]) };
        rest.fold(*last, |right, left| node(left, &right))
    }
}

/// Largest power of two below `n`, which is 2 at least.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// The root over these chain hashes.
#[must_use]
pub fn root(leaves: &[Digest]) -> Digest {
    let mut tree = Frontier::default();
    leaves.iter().for_each(|l| tree.push(l));
    tree.root()
}

/// The path from leaf `index` to the root over `leaves`, from the bottom up. `None` when there is no such leaf.
#[must_use]
pub fn inclusion(leaves: &[Digest], index: usize) -> Option<Vec<Digest>> {
    match leaves.len() {
        n if index >= n => None,
        1 => Some(Vec::new()),
        n => {
            let (left, right) = leaves.split_at_checked(split(n))?;
            let (mut path, other) = match index.checked_sub(left.len()) {
                None => (inclusion(left, index)?, root(right)),
                Some(index) => (inclusion(right, index)?, root(left)),
            };
            path.push(other);
            Some(path)
        }
    }
}

/// Proof that the tree over `leaves` begins with the tree over its first `old`. `None` when there are fewer, or none.
#[must_use]
pub fn consistency(leaves: &[Digest], old: usize) -> Option<Vec<Digest>> {
    match old {
        0 => Some(Vec::new()),
        _ => (old <= leaves.len()).then(|| subproof(leaves, old, true))?,
    }
}

fn subproof(leaves: &[Digest], old: usize, whole: bool) -> Option<Vec<Digest>> {
    if old == leaves.len() {
        return Some(if whole { Vec::new() } else { vec![root(leaves)] });
    }
    let (left, right) = leaves.split_at_checked(split(leaves.len()))?;
    let (mut proof, other) = match old.checked_sub(left.len()).filter(|over| *over > 0) {
        None => (subproof(left, old, whole)?, root(right)),
        Some(over) => (subproof(right, over, false)?, root(left)),
    };
    proof.push(other);
    Some(proof)
}

/// Whether the record with this chain hash is leaf `index` of the tree with `size` leaves and this root
/// (RFC 9162, section 2.1.3.2).
#[must_use]
pub fn includes(root: &Digest, size: u64, index: u64, chain_hash: &Digest, path: &[Digest]) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf(chain_hash));
    for step in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node(step, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node(&hash, step);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

fn root_of_none() -> Digest {
    Frontier::default().root()
}

/// Whether the tree (`size`, `root`) begins with the tree (`old_size`, `old_root`) (RFC 9162, section 2.1.4.2).
#[must_use]
pub fn extends(old_size: u64, old_root: &Digest, size: u64, root: &Digest, proof: &[Digest]) -> bool {
    if old_size == size {
        return proof.is_empty() && old_root == root;
    }
    if old_size == 0 {
        return proof.is_empty() && *old_root == root_of_none();
    }
    if old_size > size {
        return false;
    }
    let mut rest = proof.iter();
    let first = if old_size.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(first) = first else { return false };
    let shift = (old_size - 1).trailing_ones();
    let (mut at, mut last) = ((old_size - 1) >> shift, (size - 1) >> shift);
    let (mut old, mut new) = (*first, *first);
    for step in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            (old, new) = (node(step, &old), node(step, &new));
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new = node(&new, step);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && old == *old_root && new == *root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(n: usize) -> Vec<Digest> {
        (0..n).map(|i| Digest::of(&i.to_be_bytes())).collect()
    }

    /// The recursive definition of RFC 6962, section 2.1.
    fn defined(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [one] => leaf(one),
            many => {
                let (left, right) = many.split_at(split(many.len()));
                node(&defined(left), &defined(right))
            }
        }
    }

    #[test]
    fn roots_are_those_of_the_definition() {
        (0..70).for_each(|n| assert_eq!(root(&leaves(n)), defined(&leaves(n)), "{n}"));
    }

    #[test]
    fn a_known_answer() {
        // The root of no leaves, as RFC 6962 gives it.
        assert!(root(&[]).to_string().ends_with("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    }

    #[test]
    fn every_inclusion_proof_holds_and_no_other_one() {
        for n in 1..40 {
            let all = leaves(n);
            let root = root(&all);
            for i in 0..n {
                let path = inclusion(&all, i).unwrap();
                assert!(includes(&root, n as u64, i as u64, &all[i], &path));
                assert!(!includes(&root, n as u64, i as u64, &Digest::of(b"other"), &path));
                assert!(n == 1 || !includes(&root, n as u64, (i as u64 + 1) % n as u64, &all[i], &path));
                let mut longer = path.clone();
                longer.push(root);
                assert!(!includes(&root, n as u64, i as u64, &all[i], &longer));
                for at in 0..path.len() {
                    let mut bad = path.clone();
                    bad[at] = Digest::of(b"bad");
                    assert!(!includes(&root, n as u64, i as u64, &all[i], &bad));
                }
            }
        }
    }

    #[test]
    fn every_consistency_proof_holds_and_no_other_one() {
        for n in 1..40 {
            let all = leaves(n);
            let new = root(&all);
            // Every log begins with the empty one.
            assert_eq!(consistency(&all, 0), Some(Vec::new()));
            assert!(extends(0, &root(&[]), n as u64, &new, &[]));
            assert!(!extends(0, &new, n as u64, &new, &[]) && !extends(0, &root(&[]), n as u64, &new, &[new]));
            for m in 1..=n {
                let old = root(&all[..m]);
                let proof = consistency(&all, m).unwrap();
                assert!(extends(m as u64, &old, n as u64, &new, &proof), "{m} {n}");
                assert!(!extends(m as u64, &Digest::of(b"other"), n as u64, &new, &proof));
                assert!(!extends(m as u64, &old, n as u64, &Digest::of(b"other"), &proof));
                let mut longer = proof.clone();
                longer.push(new);
                assert!(!extends(m as u64, &old, n as u64, &new, &longer));
            }
        }
    }
}
