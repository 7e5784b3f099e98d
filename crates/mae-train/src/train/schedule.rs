//! The learning rate of each step.

/// Linear warm-up from 0, then half a cosine down to `min_lr`.
///
/// ```
/// use mae_train::train::schedule::Schedule;
/// let schedule = Schedule { peak_lr: 1e-3, min_lr: 0.0, warmup_steps: 10.0, total_steps: 110.0 };
/// assert_eq!(schedule.lr(0), 0.0);
/// assert_eq!(schedule.lr(10), 1e-3);
/// assert!((schedule.lr(60) - 5e-4).abs() < 1e-12);
/// ```
///
/// Source: He et al. 2021, appendix A.1; Loshchilov and Hutter 2017, "SGDR", one cycle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Learning rate at the end of the warm-up.
    pub peak_lr: f64,
    /// Learning rate that the cosine ends at.
    pub min_lr: f64,
    /// Steps of the warm-up; may be a fraction.
    pub warmup_steps: f64,
    /// Steps of the whole run, warm-up included.
    pub total_steps: f64,
}

impl Schedule {
    /// The learning rate of step `step`, counted from 0.
    pub fn lr(&self, step: u64) -> f64 {
        let step = step as f64;
        if step < self.warmup_steps {
            return self.peak_lr * step / self.warmup_steps;
        }
        let progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.min_lr + (self.peak_lr - self.min_lr) * cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_zero_peaks_and_ends_near_the_minimum() {
        let schedule = Schedule {
            peak_lr: 2.0,
            min_lr: 0.5,
            warmup_steps: 4.0,
            total_steps: 100.0,
        };
        let lrs: Vec<f64> = (0..100).map(|step| schedule.lr(step)).collect();
        assert_eq!(lrs[..5], [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert!(lrs[4..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(lrs[99] > 0.5 && lrs[99] < 0.501);
    }

    #[test]
    fn no_warmup_starts_at_the_peak() {
        let schedule = Schedule {
            peak_lr: 2.0,
            min_lr: 0.0,
            warmup_steps: 0.0,
            total_steps: 10.0,
        };
        assert_eq!(schedule.lr(0), 2.0);
    }
}
