//! Whole numbers in as few bytes as they need (LEB128: seven bits a byte, the lowest first).

/// Writes one.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads one, and what stands behind it.
pub(super) fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        let shifted = part << (7 * at);
        (shifted >> (7 * at) == part).then_some(())?;
        number |= shifted;
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}

/// Writes numbers that rise, each as what it is more than the one before.
pub(super) fn put_rising(out: &mut Vec<u8>, numbers: &[u64]) {
    let before = std::iter::once(0).chain(numbers.iter().copied());
    numbers.iter().zip(before).for_each(|(number, before)| put(out, number.wrapping_sub(before)));
}

/// Reads them up to the end.
pub(super) fn take_rising(mut bytes: &[u8]) -> Option<Vec<u64>> {
    let (mut numbers, mut last) = (Vec::new(), 0_u64);
    while !bytes.is_empty() {
        let (more, rest) = take(bytes)?;
        last = last.wrapping_add(more);
        numbers.push(last);
        bytes = rest;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_and_rubbish_does_not() {
        let numbers = [0, 1, 127, 128, 300, 1 << 40, u64::MAX];
        let mut bytes = Vec::new();
        put_rising(&mut bytes, &numbers);
        assert_eq!(take_rising(&bytes).unwrap(), numbers);
        numbers.iter().for_each(|n| {
            let mut one = Vec::new();
            put(&mut one, *n);
            assert_eq!(take(&one).unwrap(), (*n, &[][..]));
            assert!(one.len() < 2 || take(&one[..one.len() - 1]).is_none(), "cut");
        });
        assert!(take(&[0xff; 10]).is_none() && take(&[0x80; 11]).is_none());
    }

    #[test]
    fn what_stands_in_the_index_for_a_call_is_short() {
        let mut bytes = vec![3, 1];
        put(&mut bytes, 1_795_440_600_000);
        put_rising(&mut bytes, &[1_000_000_000, 1_000_000_900]);
        assert!(bytes.len() <= 22, "{}", bytes.len());
    }
}
