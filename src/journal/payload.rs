//! A bounded memory of the newest payloads.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// The newest payloads in the clear, oldest out first.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<(u64, u32), Bytes>,
    order: VecDeque<(u64, u32)>,
    bytes: usize,
    limit: usize,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    pub(super) fn get(&self, key: (u64, u32)) -> Option<Bytes> {
        self.entries.get(&key).cloned()
    }

    pub(super) fn put(&mut self, key: (u64, u32), bytes: Bytes) {
        if bytes.len() > self.limit || self.entries.contains_key(&key) {
            return;
        }
        self.bytes += bytes.len();
        self.order.push_back(key);
        self.entries.insert(key, bytes);
        while self.bytes > self.limit || self.order.len() > self.limit / 64 {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.entries.remove(&oldest).map_or(0, |b| b.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let mut cache = Cache::new(1000);
        (0..100).for_each(|i| cache.put((i, 0), Bytes::from(vec![0; 100])));
        assert!(cache.bytes <= 1000 && cache.get((99, 0)).is_some() && cache.get((0, 0)).is_none());
    }
}
