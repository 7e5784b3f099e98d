use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::batch::panic_message;
use super::recipe::Recipe;
use super::{MaskedBatch, Source};
use crate::error::DataError;

/// The batches of one epoch, made ahead of the consumer on other threads.
///
/// After an error there are no more batches.
/// Dropping it stops the threads: each finishes the image at hand.
pub struct Epoch<B = MaskedBatch> {
    /// `None` once the epoch has ended.
    batches: Option<Receiver<Result<B, DataError>>>,
    coordinator: Option<JoinHandle<()>>,
    start_error: Option<DataError>,
    stop: Arc<AtomicBool>,
}

impl<B: Send + 'static> Epoch<B> {
    pub(super) fn start<C: Recipe<Batch = B>>(
        source: Arc<Source<C>>,
        epoch: u64,
        first_batch: usize,
    ) -> Epoch<B> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, batches) = sync_channel(source.schedule.prefetch);
        let coordinator = Builder::new().name("mae-loader".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || send_batches(&source, epoch, first_batch, &stop, &sender)
        });
        let (coordinator, start_error) = match coordinator {
            Ok(coordinator) => (Some(coordinator), None),
            Err(error) => (
                None,
                Some(DataError::Threads {
                    source: error.into(),
                }),
            ),
        };
        Epoch {
            batches: Some(batches),
            coordinator,
            start_error,
            stop,
        }
    }
}

impl<B> Epoch<B> {
    /// Waits for the coordinator; the error is its panic, if it died of one.
    fn finish(&mut self) -> Option<DataError> {
        self.stop.store(true, Ordering::Relaxed);
        // A coordinator that waits to send a batch returns when nobody can receive it.
        self.batches = None;
        let panic = self.coordinator.take()?.join().err()?;
        Some(DataError::Panic {
            name: "epoch".to_owned(),
            message: panic_message(panic.as_ref()),
        })
    }
}

impl<B> Iterator for Epoch<B> {
    type Item = Result<B, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.start_error.take() {
            self.finish();
            return Some(Err(error));
        }
        match self.batches.as_ref()?.recv() {
            Ok(Ok(batch)) => Some(Ok(batch)),
            Ok(Err(error)) => {
                self.finish();
                Some(Err(error))
            }
            Err(_) => self.finish().map(Err),
        }
    }
}

impl<B> Drop for Epoch<B> {
    fn drop(&mut self) {
        self.finish();
    }
}

fn send_batches<C: Recipe>(
    source: &Source<C>,
    epoch: u64,
    first_batch: usize,
    stop: &AtomicBool,
    sender: &SyncSender<Result<C::Batch, DataError>>,
) {
    let order = source.order(epoch);
    let batches = source.schedule.batches(order.len());
    let numbered = order.chunks(source.schedule.batch_size).enumerate();
    for (number, indices) in numbered.take(batches).skip(first_batch) {
        let batch = source
            .batch(epoch, number, indices, stop)
            .and_then(|batch| source.check_broken().map(|()| batch));
        let message = match batch {
            Ok(None) => return,
            Ok(Some(batch)) if C::is_empty(&batch) => continue,
            Ok(Some(batch)) => Ok(batch),
            Err(error) => Err(error),
        };
        let is_last = message.is_err();
        if sender.send(message).is_err() || is_last {
            return;
        }
    }
}
