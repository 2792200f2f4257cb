//! The results of calls.

/// The results of one connection, or of all.
#[derive(Default)]
pub struct Tally {
    pub nanoseconds: Vec<u64>,
    pub failed: u64,
    pub seconds: f64,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.nanoseconds.extend(other.nanoseconds);
        self.failed += other.failed;
        self.seconds = self.seconds.max(other.seconds);
    }

    pub fn report(mut self) -> String {
        self.nanoseconds.sort_unstable();
        let count = self.nanoseconds.len();
        let at = |share: f64| {
            let index = ((count as f64 * share) as usize).min(count.saturating_sub(1));
            self.nanoseconds.get(index).map_or(f64::NAN, |&nanoseconds| nanoseconds as f64 / 1e3)
        };
        let mean = self.nanoseconds.iter().sum::<u64>() as f64 / count.max(1) as f64 / 1e3;
        format!(
            r#"{{"answered": {count}, "failed": {}, "seconds": {:.3}, "per_second": {:.1}, "mean_us": {mean:.1}, "p50_us": {:.1}, "p90_us": {:.1}, "p99_us": {:.1}}}"#,
            self.failed,
            self.seconds,
            count as f64 / self.seconds,
            at(0.5),
            at(0.9),
            at(0.99)
        )
    }
}
