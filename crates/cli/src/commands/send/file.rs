//! A file of any size: sent in chunks, with a word on how far it is.

use std::path::Path;
use std::time::Duration;

use sealwire_client::{FileOptions, FileSend, Receipt};
use serde_json::json;

use super::Until;
use super::way::within;
use crate::device::Device;
use crate::exit::{Class, Failure};
use crate::output::{Output, Printable};
use crate::progress::Bar;

/// What is to be sent, and how far it has to get.
pub(super) struct File<'a> {
    pub(super) device: &'a Device,
    pub(super) user: &'a str,
    pub(super) path: &'a Path,
    pub(super) media_type: Option<String>,
    /// Accepted or delivered.
    pub(super) until: Until,
    /// For all of it; `None`: as long as it takes.
    pub(super) timeout: Option<Duration>,
    pub(super) output: Output,
}

impl File<'_> {
    /// Says at once what will never work.
    pub(super) fn check(path: &Path) -> Result<(), Failure> {
        match std::fs::metadata(path) {
            Ok(found) if found.is_file() => Ok(()),
            Ok(_) => Err(Failure::usage(format_args!(
                "{} is not a file",
                path.display()
            ))),
            Err(error) => Err(Failure::usage(format_args!(
                "{} cannot be read: {error}",
                path.display()
            ))),
        }
    }

    /// Sends it, or the rest of it.
    pub(super) async fn send(self) -> Result<(), Failure> {
        let sent = within(self.timeout, self.carry()).await;
        let (id, name) = sent.ok_or_else(|| {
            Failure::new(
                Class::Timeout,
                format_args!(
                    "{} is not there within {} s; the same command goes on from where this one ended",
                    self.path.display(),
                    self.timeout.unwrap_or_default().as_secs()
                ),
            )
        })??;
        let (state, shown) = if self.until == Until::Accepted {
            ("accepted", "safe at the relay")
        } else {
            ("delivered", "offered to every device")
        };
        self.output.result(
            &json!({"id": id, "user": self.user, "state": state, "file": name}),
            format_args!("{id} {} {shown}", Printable(&name)),
        )
    }

    async fn carry(&self) -> Result<(String, String), Failure> {
        let mut options = FileOptions::default();
        if let Some(media_type) = &self.media_type {
            options.media_type.clone_from(media_type);
        }
        let sending = self.device.client.send_file(self.user, self.path, options);
        let receipt = self.watch(sending.await?).await?;
        let id = receipt.id().to_string();
        if self.until != Until::Accepted {
            receipt.delivered().await?;
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        Ok((id, name.into_owned()))
    }

    async fn watch(&self, mut sending: FileSend) -> Result<Receipt, Failure> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut bar = Bar::new(self.output, &name);
        while let Some(progress) = sending.progress().await {
            bar.show(progress.done, progress.total);
        }
        drop(bar);
        Ok(sending.finish().await?)
    }
}
