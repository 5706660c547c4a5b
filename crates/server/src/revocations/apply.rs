//! Carries out what is newly revoked: links end, cards go, whom it concerns is told.
use std::sync::Arc;
use std::time::Duration;

use sealwire_protocol::token::TokenClaims;
use tokio::sync::watch::Receiver;
use tokio::time::MissedTickBehavior;

use super::{List, Revocation, Revocations, RevocationsError, Stamp, append, read};
use crate::clock;
use crate::hub::News;
use crate::now::Now;
use crate::shared::Shared;
use crate::storage::StorageError;

/// How often the file is looked at: live links are to close within a second.
const INTERVAL: Duration = Duration::from_millis(500);

/// Carries out what is revoked already, which a crash may have left undone, and then what the file says whenever it has changed, until the relay
/// stops.
pub(crate) async fn watch(shared: Arc<Shared>, mut stop: Receiver<bool>) {
    let for_ever = async {
        let mut seen = stamp(&shared.revocations).await;
        {
            let revocations = &shared.revocations;
            let _changing = revocations.changing.lock().await;
            carry_out(&shared, &List::default(), &revocations.list(), clock::now()).await;
        }
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = stamp(&shared.revocations).await;
            if now != seen {
                seen = now;
                reload(&shared).await;
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = for_ever => {}
    }
}

/// Revokes something: when this returns, it is durable, no token that it covers is accepted any more, and the cards are gone.
pub(crate) async fn revoke(
    shared: &Shared,
    revocation: Revocation,
) -> Result<(), RevocationsError> {
    let revocations = &shared.revocations;
    let _changing = revocations.changing.lock().await;
    if let Some(file) = revocations.file.clone() {
        let line = revocation.clone();
        blocking(move || append(&file, &line)).await?;
    }
    let old = revocations.list();
    let mut new = List::clone(&old);
    new.add(revocation);
    change(shared, &old, new).await;
    Ok(())
}

/// The file has changed. What cannot be read revokes nothing, and gives nothing back either.
async fn reload(shared: &Shared) {
    let revocations = &shared.revocations;
    let Some(file) = revocations.file.clone() else {
        return;
    };
    let _changing = revocations.changing.lock().await;
    let old = revocations.list();
    let found = blocking(move || {
        // Whoever moves the file away has not said that anything counts again.
        if Stamp::of(&file).is_ok_and(|stamp| stamp.is_none()) {
            return Ok(None);
        }
        read(&file).map(Some)
    });
    let new = match found.await {
        Ok(Some((list, None))) => list,
        Ok(Some((list, Some(bad)))) => {
            tracing::error!(error = %bad, "revocations: the other lines count, and so does what did before");
            list.and(&old)
        }
        Ok(None) => {
            tracing::error!("revocations: the file is gone; what was in it still counts");
            return;
        }
        Err(error) => {
            tracing::error!(%error, "revocations: what counted before still does");
            return;
        }
    };
    change(shared, &old, new).await;
}

async fn change(shared: &Shared, old: &List, new: List) {
    if new == *old {
        return;
    }
    tracing::info!("revocations have changed");
    let new = Arc::new(new);
    shared.revocations.set(Arc::clone(&new));
    carry_out(shared, old, &new, clock::now()).await;
}

/// What `new` revokes and `old` did not. What a store that fails keeps from being done is done at the next start; tokens are refused meanwhile.
async fn carry_out(shared: &Shared, old: &List, new: &List, now: Now) {
    // Each looks at its own token.
    shared.hub.ring_all(News::REVOCATIONS);
    let removed = remove(shared, old, new, now).await;
    let withdrawn = if new.has_new_tokens(old) {
        withdraw(shared, new, now).await
    } else {
        Ok(())
    };
    for done in [removed, withdrawn] {
        if let Err(error) = done {
            tracing::error!(%error, "revocations: cards are still there; start the relay again");
        }
    }
}

async fn remove(shared: &Shared, old: &List, new: &List, now: Now) -> Result<(), StorageError> {
    for device in new.new_devices(old) {
        if !shared.directory.is_removed(&device)? {
            shared.remove_device(&device, None, now).await?;
        }
    }
    for user in new.new_users(old) {
        for device in shared.directory.all_devices(&user)? {
            shared.remove_device(&device, Some(&user), now).await?;
        }
    }
    Ok(())
}

/// Takes away the cards whose attestation is revoked. Their devices may publish others.
async fn withdraw(shared: &Shared, list: &List, now: Now) -> Result<(), StorageError> {
    let list = list.clone();
    let covered = move |claims: &TokenClaims| list.covers(claims);
    for (user, device) in shared.directory.withdraw(covered).await? {
        shared.tell_of_devices(&user, &device, now);
    }
    Ok(())
}

async fn stamp(revocations: &Revocations) -> Option<Stamp> {
    let file = revocations.file.clone()?;
    blocking(move || Stamp::of(&file)).await.unwrap_or_default()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}
