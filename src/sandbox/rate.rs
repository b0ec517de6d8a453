//! How many requests the tenant serves in a second.

/// Counts by whole seconds of the sandbox's clock.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u32,
    second: i64,
    served: u32,
}

impl Rate {
    /// 0: no limit.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, second: 0, served: 0 }
    }

    /// Whether one more request is served at `now` (Unix milliseconds).
    pub(super) fn admits(&mut self, now: i64) -> bool {
        let second = now.div_euclid(1_000);
        if second != self.second {
            (self.second, self.served) = (second, 0);
        }
        self.served = self.served.saturating_add(1);
        self.per_second == 0 || self.served <= self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_admits_its_own_number_and_zero_is_no_limit() {
        let mut rate = Rate::new(2);
        assert_eq!([0, 1, 999, 1_000, 1_001, 1_002].map(|now| rate.admits(now)), [true, true, false, true, true, false]);
        let mut none = Rate::new(0);
        assert!((0..100).all(|_| none.admits(0)));
    }
}
