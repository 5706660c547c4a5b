//! What a relay does beside its connections.
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bounds::SWEEP_INTERVAL;
use crate::clock;
use crate::shared::Shared;

/// The relay's own tasks; dropping them ends them.
#[derive(Debug)]
pub(super) struct Tasks(pub(super) Vec<JoinHandle<()>>);

impl Tasks {
    /// Waits until all have ended. Cancelling loses nothing.
    pub(super) async fn finished(&mut self) {
        while let Some(task) = self.0.last_mut() {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the relay failed");
            }
            self.0.pop();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Gives back mail that is too old, now and then.
pub(super) async fn sweep_mail(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let removals = async {
        if let Err(error) = shared.finish_removals(clock::now()).await {
            tracing::warn!(%error, "removed devices not looked for");
        }
    };
    until_stopped(&mut stop, removals).await;
    now_and_then(&mut stop, || async {
        match shared.sweep(clock::now()) {
            Ok(swept) => {
                if swept.waits {
                    shared.mailboxes.room().await;
                }
                swept.more || swept.waits
            }
            Err(error) => {
                tracing::warn!(%error, "old mail not swept");
                false
            }
        }
    })
    .await;
}

/// Erases blobs that are too old, now and then; apart from mail, because it waits for the disk.
pub(super) async fn sweep_blobs(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let sweep = || shared.blobs.sweep(clock::now().seconds());
    now_and_then(&mut stop, sweep).await;
}

/// Does some work in every [`SWEEP_INTERVAL`], and again at once while it says that there is more to do, until the relay stops.
async fn now_and_then<F: Future<Output = bool>>(
    stop: &mut watch::Receiver<bool>,
    work: impl Fn() -> F,
) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let for_ever = async {
        loop {
            ticks.tick().await;
            while work().await {
                tokio::task::yield_now().await;
            }
        }
    };
    until_stopped(stop, for_ever).await;
}

/// Does it unless the relay stops before: then it ends where it waits.
async fn until_stopped(stop: &mut watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that hangs here has found work that goes on when the relay stops.
    #[tokio::test]
    async fn work_of_which_there_is_always_more_ends_when_the_relay_stops() {
        let (stop, mut stopped) = watch::channel(false);
        let times = std::cell::Cell::new(0);
        now_and_then(&mut stopped, || async {
            times.set(times.get() + 1);
            if times.get() == 3 {
                stop.send_replace(true);
            }
            true
        })
        .await;
        assert_eq!(times.get(), 3);
    }

    #[tokio::test]
    async fn work_that_waits_ends_when_the_relay_stops() {
        let (stop, mut stopped) = watch::channel(false);
        stop.send_replace(true);
        now_and_then(&mut stopped, std::future::pending).await;
    }
}
