//! A relay over TLS, with everything it stores in a directory that is removed in the end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use sealwire_client::{Tls, TrustedIssuer};
use sealwire_protocol::invite::Invitation;
use sealwire_server::data_dir::DataDir;
use sealwire_server::mail::disk::DirectoryDisk;
use sealwire_server::mail::{MailOptions, Mailboxes};
use sealwire_server::storage::{Storage, StorageOptions};
use sealwire_server::{Relay, RelayBuilder};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{Account, Credential, Device, Issuer, within};

/// A relay, the files of its devices, and how it was configured.
pub struct Town {
    folder: TempDir,
    relay: Option<Relay>,
    listen: SocketAddr,
    whereabouts: Whereabouts,
    configure: Box<dyn Fn(RelayBuilder) -> RelayBuilder>,
}

/// What a device has to know to find a relay.
#[derive(Clone, Debug)]
pub struct Whereabouts {
    /// The relay's address with its thumbprint.
    pub address: String,
    /// Whom TLS trusts.
    pub tls: Tls,
}

impl Town {
    /// A relay with its built-in issuer and its own certificate.
    pub async fn new() -> Self {
        Self::with(|relay| relay).await
    }

    /// A relay that is configured by `configure` at every start.
    pub async fn with(configure: impl Fn(RelayBuilder) -> RelayBuilder + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let builder = configure(Relay::builder(folder.path().join("relay")));
        let relay = within("the relay's first start", builder.bind("127.0.0.1:0")).await;
        let relay = relay.unwrap();
        let certificate = relay
            .certificate_pem()
            .expect("it speaks TLS with its own certificate");
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let whereabouts = Whereabouts {
            address: relay.address().to_string(),
            tls: Tls::Pinned(Sha256::digest(&der).into()),
        };
        Self {
            folder,
            listen: relay.local_addr(),
            relay: Some(relay),
            whereabouts,
            configure: Box::new(configure),
        }
    }

    /// A relay that takes the tokens of `issuer`, and none of its own.
    pub async fn of(issuer: &Issuer) -> Self {
        let issuer = issuer.clone();
        Self::with(move |relay| relay.issuer(issuer.name(), crate::AUDIENCE, issuer.keys())).await
    }

    /// The running relay.
    pub fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("the relay runs")
    }

    /// How to find it.
    pub fn whereabouts(&self) -> &Whereabouts {
        &self.whereabouts
    }

    /// Where the relay keeps everything.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("relay")
    }

    /// An invitation of the built-in issuer.
    pub async fn invite(&self, user: &str) -> Invitation {
        let inviting = self.relay().invite(user, Duration::from_secs(3_600));
        within("an invitation", inviting).await.unwrap()
    }

    /// A new device with an invitation, which has not connected yet.
    pub fn invited(&self, invitation: &Invitation) -> Account {
        let issuer = TrustedIssuer::built_in(invitation.relay.issuer_key.as_bytes()).unwrap();
        let code = invitation.code.expose().to_vec();
        self.account(issuer, Credential::Invite(code))
    }

    /// A new device that signs in with a provider's tokens, and has not connected yet.
    pub fn introduced(&self, credential: Credential) -> Account {
        let introduction = self.relay().introduction().unwrap();
        let issuer = TrustedIssuer::built_in(introduction.issuer_key.as_bytes()).unwrap();
        self.account(issuer, credential)
    }

    /// A new device that has not connected yet, with a store in a file of its own.
    pub fn account(&self, issuer: TrustedIssuer, credential: Credential) -> Account {
        Account::new(
            self.whereabouts.clone(),
            issuer,
            credential,
            self.folder.path(),
        )
    }

    /// A new device of `user`, enrolled by an invitation: connected, and reachable for others.
    pub async fn join(&self, user: &str) -> Device {
        self.invited(&self.invite(user).await).arrive().await
    }

    /// Stops the relay; its directory stays.
    pub async fn stop(&mut self) {
        let relay = self.relay.take().expect("the relay runs");
        within("the relay's end", relay.shutdown()).await;
    }

    /// What the relay knows of devices, to look at and to tamper with while it does not run.
    pub fn stored(&self) -> Storage {
        assert!(self.relay.is_none(), "the relay was stopped");
        Storage::open(&self.data(), &StorageOptions::default()).unwrap()
    }

    /// The relay's mailboxes, likewise.
    pub fn mailboxes(&self) -> Mailboxes {
        assert!(self.relay.is_none(), "the relay was stopped");
        let path = DataDir::open(&self.data()).unwrap().mail_path();
        let disk = DirectoryDisk::open(&path).unwrap();
        Mailboxes::open(Arc::new(disk), &MailOptions::default()).unwrap()
    }

    /// Starts the relay again, on the same directory and port.
    pub async fn start(&mut self) {
        assert!(self.relay.is_none(), "the relay was stopped");
        let builder = (self.configure)(Relay::builder(self.data()));
        let relay = within("the relay's next start", builder.bind(self.listen)).await;
        self.relay = Some(relay.unwrap());
    }
}
