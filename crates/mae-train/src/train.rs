//! One update, of whatever is trained: [`trainer`], with the optimizer ([`optim`]), the learning rate ([`schedule`]),
//! the [`precision`] and the sums that metrics are read from ([`totals`]).

pub mod optim;
pub mod precision;
pub mod schedule;
pub mod totals;
pub mod trainer;
