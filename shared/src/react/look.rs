//! One look at one image: the order of it all.

use std::future::Future;
use std::pin::Pin;

use jiff::Timestamp;

use super::facts::Kind;
use super::policy::{Loaded, Policies};
use super::release::{self, ImageRelease, Standing, Terms};
use super::verify::{Verified, verify};
use super::{ReactError, judge};
use crate::config::{ReactConfig, ReleaseGate};
use crate::ecr::{ListedImage, Registry, RegistryError, Repositories, RepositoryError, Settings, TokenSource};
use crate::image::{Digest, Repository, Tag};
use crate::limits;
use crate::notify::Notifier;
use crate::receipt::{ImageReaction, Receipts, UploadId};
use crate::state::image_record::Released;
use crate::state::{Documents, ImageRecord, ImageRecords};
use crate::timeouts::Timeouts;

/// Looks at images; made once for each process.
#[derive(Debug)]
pub struct Reactor {
    pub(super) config: ReactConfig,
    pub(super) ecr: aws_sdk_ecr::Client,
    pub(super) registry: Registry,
    pub(super) repositories: Repositories,
    pub(super) records: ImageRecords,
    pub(super) policies: Policies,
    pub(super) notifier: Notifier,
    pub(super) now: fn() -> Timestamp,
    pub(super) state: Documents,
    receipts: Receipts,
}

/// Why and at what a look is taken.
#[derive(Debug, Clone)]
pub struct Look {
    /// Where.
    pub repository: Repository,
    /// Which image; its tag counts where there is none.
    pub digest: Option<Digest>,
    /// Under which tag it was pushed.
    pub tag: Option<Tag>,
    /// Whether it is read back although that was done before.
    pub verify: bool,
    /// When its scan is said to have changed; findings that were read well after that are not read again.
    pub scanned_at: Option<Timestamp>,
    /// Whether a scan of it is said to have ended.
    pub scan_ended: bool,
}

impl Look {
    /// A look at an image whose verification and verdict are made only where they are missing or old.
    pub fn at(repository: Repository, digest: Digest) -> Self {
        Self { repository, digest: Some(digest), tag: None, verify: false, scanned_at: None, scan_ended: false }
    }
}

/// What became of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// Where the image stands.
    At(Standing),
    /// The same; and its scan is said to have ended, while ECR says that it goes on.
    Unscanned(Standing),
    /// The repository is not ours.
    NotOurs,
    /// The image is not there, or its repository is not.
    Gone,
}

/// An image in the middle of a look.
pub(super) struct Subject<'a> {
    pub(super) settings: &'a Settings,
    pub(super) listed: &'a ListedImage,
    pub(super) record: ImageRecord,
}

impl Subject<'_> {
    pub(super) fn kind(&self) -> Option<Kind> {
        self.record.facts.as_ref().map(|facts| facts.kind)
    }
}

/// A recursive future has to be boxed.
type LookFuture<'f> = Pin<Box<dyn Future<Output = Result<Looked, ReactError>> + Send + 'f>>;

/// The clients that a reactor calls through.
#[derive(Debug, Clone)]
pub struct Clients {
    /// State and receipts.
    pub s3: aws_sdk_s3::Client,
    /// Repositories, tags and findings.
    pub ecr: aws_sdk_ecr::Client,
    /// Events and messages.
    pub notifier: Notifier,
    /// How long the registry may take; the other clients know their own.
    pub timeouts: Timeouts,
    /// TLS for the registry; without it, its client looks for the machine's certificate authorities itself.
    pub tls: Option<rustls::ClientConfig>,
}

impl Reactor {
    /// A reactor for `config`. `now` is the clock.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unreachable`] when the TLS stack cannot be set up.
    pub fn new(config: ReactConfig, clients: Clients, now: fn() -> Timestamp) -> Result<Self, RegistryError> {
        let Clients { s3, ecr, notifier, tls, timeouts } = clients;
        let state = Documents::new(s3.clone(), &config.common.state_bucket);
        let tokens = TokenSource::new(ecr.clone(), config.common.registry_endpoint.clone(), now);
        Ok(Self {
            registry: Registry::new(tokens, tls, timeouts)?,
            repositories: Repositories::new(ecr.clone(), config.common.stack.clone()),
            records: ImageRecords::new(state.clone()),
            policies: Policies::new(state.clone()),
            receipts: Receipts::new(s3, config.common.stack.clone()),
            notifier,
            ecr,
            state,
            config,
            now,
        })
    }

    /// The bucket whose objects may change a verdict.
    pub fn state_bucket(&self) -> &str {
        &self.config.common.state_bucket
    }

    /// The policy in force; whoever asks also tells, once, what is wrong with the file and which exceptions end.
    ///
    /// # Errors
    ///
    /// [`ReactError`], transient.
    pub async fn policy(&self) -> Result<Loaded, ReactError> {
        let loaded = self.policies.load((self.now)()).await?;
        self.tell_of_policy(&loaded).await?;
        Ok(loaded)
    }

    /// Looks at one image, and at the indexes that name it: verifies, judges, tags, releases and tells whatever is left
    /// of that.
    ///
    /// # Errors
    ///
    /// [`ReactError`]; what was found until then is written down, and the next look goes on from there.
    pub fn look<'f>(&'f self, look: &'f Look, policy: &'f Loaded) -> LookFuture<'f> {
        self.look_deep(look, policy, 0)
    }

    fn look_deep<'f>(&'f self, look: &'f Look, policy: &'f Loaded, depth: usize) -> LookFuture<'f> {
        Box::pin(async move {
            let repository = &look.repository;
            let settings = match self.repositories.find(repository).await {
                Ok(Some(settings)) => settings,
                Ok(None) => {
                    self.note_gone(look).await?;
                    return Ok(Looked::Gone);
                }
                Err(RepositoryError::NotOurs { .. }) => return Ok(Looked::NotOurs),
                Err(error) => return Err(error.into()),
            };
            let listed = self.repositories.image(repository, look.digest, look.tag.as_ref()).await?;
            let Some(listed) = listed else {
                self.note_gone(look).await?;
                return Ok(Looked::Gone);
            };
            let pushed_at = listed.pushed_at;
            let record = self.records.update(repository, listed.digest, |record| {
                record.pushed(pushed_at);
                record.scan_ended |= look.scan_ended;
            });
            let mut subject = Subject { settings: &settings, listed: &listed, record: record.await? };
            let newer = self.newer_policy(&subject.record, policy).await?;
            let policy = newer.as_ref().unwrap_or(policy);

            self.verified(&mut subject, look.verify).await?;
            let is_running = self.judged(&mut subject, policy, look.scanned_at).await?;
            let standing = self.released(&mut subject).await?;
            // A tag that cannot be set keeps no receipt open and nobody from hearing; the look is taken again for it.
            let tagged = self.tagged(&mut subject, &standing).await;
            self.write_receipts(&subject, &standing).await?;
            self.tell_of(&mut subject, &standing).await?;

            // Whatever order children and indexes are pushed and scanned in: whoever comes last finds the others.
            if depth < limits::INDEX_DEPTH {
                for parent in subject.record.parents.clone() {
                    if self.has_folded(repository, parent, &subject.record).await? {
                        continue;
                    }
                    let parent = Look::at(repository.clone(), parent);
                    self.look_deep(&parent, policy, depth + 1).await?;
                }
            }
            tagged?;
            Ok(if look.scan_ended && is_running { Looked::Unscanned(standing) } else { Looked::At(standing) })
        })
    }

    /// The policy in force now, if the image's verdict is by another one that was read after `known`.
    async fn newer_policy(&self, record: &ImageRecord, known: &Loaded) -> Result<Option<Loaded>, ReactError> {
        let is_newer = record
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.policy != known.policy.version && verdict.policy_read_at > known.read_at);
        if is_newer { self.policy().await.map(Some) } else { Ok(None) }
    }

    /// Makes the record of an image that is gone say so, if there is one: sweeps need not look at it any more.
    async fn note_gone(&self, look: &Look) -> Result<(), ReactError> {
        let Some(digest) = look.digest else { return Ok(()) };
        if self.records.find(&look.repository, digest).await?.is_some() {
            let now = (self.now)();
            self.records
                .update(&look.repository, digest, |record| {
                    record.gone_since.get_or_insert(now);
                })
                .await?;
        }
        Ok(())
    }

    /// Whether the index `parent` has taken in the verdict of `child` as it is: a base image's finding is no reason to
    /// look at hundreds of indexes each time. One request.
    async fn has_folded(
        &self,
        repository: &Repository,
        parent: Digest,
        child: &ImageRecord,
    ) -> Result<bool, ReactError> {
        let (Some(verdict), Some(known)) = (&child.verdict, self.records.find(repository, parent).await?) else {
            return Ok(false);
        };
        let is_settled = known.released.is_some() && !known.has_stale_claim((self.now)());
        let folded = known.verdict.filter(|_| is_settled);
        Ok(folded.is_some_and(|folded| folded.policy == verdict.policy && folded.read_at > verdict.since))
    }

    /// Reads the image back, if that is asked for or was not done yet, and makes an index known to its children.
    async fn verified(&self, subject: &mut Subject<'_>, again: bool) -> Result<(), ReactError> {
        let known = &subject.record;
        let is_known = known.facts.is_some() && known.verification.as_ref().is_some_and(|known| known.passed);
        if again || !is_known {
            let (repository, digest) = (known.repository.clone(), known.digest);
            let found = verify(&self.registry, &repository, digest, known.config, (self.now)()).await?;
            let Verified { verification, facts } = found;
            if let Some(check) = verification.failures.first() {
                let check = release::in_words(check);
                tracing::warn!(ecr.repository = %repository, image.digest = %digest, check, "verification failed");
            }
            let write = self.records.update(&repository, digest, |record| {
                // What was read back later stands.
                if record.verification.as_ref().is_none_or(|known| known.at <= verification.at) {
                    record.verification = Some(verification.clone());
                }
                record.facts = facts.clone().or(record.facts.take());
            });
            subject.record = write.await?;
        }
        if let Some(facts) = subject.record.facts.as_ref().filter(|facts| facts.kind == Kind::Index) {
            let (repository, parent) = (&subject.record.repository, subject.record.digest);
            for child in &facts.children {
                // Before their verdicts are read, so that none can come in between unseen.
                self.records.update(repository, child.digest, |record| record.named_by(parent)).await?;
            }
        }
        Ok(())
    }

    /// Writes the verdict as it is now, unless a later one is there. Gives whether it is an image that is
    /// being scanned.
    async fn judged(
        &self,
        subject: &mut Subject<'_>,
        policy: &Loaded,
        scanned_at: Option<Timestamp>,
    ) -> Result<bool, ReactError> {
        let is_current = judge::is_current(&subject.record, policy, scanned_at, (self.now)());
        let (verdict, is_running) = match subject.kind() {
            Some(Kind::Image) if !is_current => self.verdict_of_image(subject, policy).await?,
            Some(Kind::Index) => (self.verdict_of_index(&subject.record, policy).await?, false),
            Some(Kind::Image | Kind::Artifact) | None => (None, false),
        };
        let Some(verdict) = verdict else { return Ok(is_running) };
        let (repository, digest) = (subject.record.repository.clone(), subject.record.digest);
        let write = self.records.update(&repository, digest, |record| {
            if let Some(newer) = verdict.clone().after(record.verdict.as_ref()) {
                record.verdict = Some(newer);
            }
        });
        subject.record = write.await?;
        Ok(false)
    }

    /// Decides, and marks a release before any tag moves: so that whoever moves tags sees every release there is.
    async fn released(&self, subject: &mut Subject<'_>) -> Result<Standing, ReactError> {
        let gate = self.config.gate;
        let state_bucket = self.state_bucket();
        let mut terms = Terms { gate, released_by_hand: false, state_bucket };
        let mut standing = release::standing(&subject.record, terms);
        if gate == ReleaseGate::Scan && !matches!(standing, Standing::Released(_)) {
            let key = release::key_by_hand(&subject.record.repository, subject.record.digest);
            terms.released_by_hand = self.state.bytes(&key).await?.is_some();
            standing = release::standing(&subject.record, terms);
        }
        if let (Standing::Released(by), None) = (&standing, &subject.record.released) {
            let (repository, digest) = (subject.record.repository.clone(), subject.record.digest);
            let released = Released { at: (self.now)(), by: *by };
            let write = self.records.update(&repository, digest, |record| {
                record.released.get_or_insert_with(|| released.clone());
            });
            subject.record = write.await?;
            tracing::info!(ecr.repository = %repository, image.digest = %digest, ?by, "released");
        }
        Ok(standing)
    }

    /// Makes the receipts of the image's uploads say what is known now.
    async fn write_receipts(&self, subject: &Subject<'_>, standing: &Standing) -> Result<(), ReactError> {
        let record = &subject.record;
        let reaction = ImageReaction {
            release: ImageRelease::of(record, standing),
            verification: record.verification.clone(),
            verdict: record.verdict.clone(),
        };
        for upload in &record.uploads {
            self.receipts.react(&UploadId::from(upload), &record.repository, record.digest, &reaction).await?;
        }
        if record.unanswered {
            let answered = |now: &mut ImageRecord| now.unanswered &= now.uploads != record.uploads;
            self.records.update(&record.repository, record.digest, answered).await?;
        }
        Ok(())
    }
}
