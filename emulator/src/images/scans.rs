//! Running scans: which images are scanned, when, and what is told of it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Digest, FindingStatus, FindingsError, Image, Images, ImagesError, Kind, Put, Repository, ScanEntry, findings::find,
    image_action, scan_events,
};
use crate::clock;

/// The configs of images that run; what has another one is an artifact and is not scanned.
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What a layer of such an image begins with; an attestation's layers are something else.
const LAYERS: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];

/// What the scan of one image gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    pub entry: ScanEntry,
    pub completed: Timestamp,
}

impl Images {
    /// The events of a put: the action itself, if it changed anything, and the scans that run now.
    pub(crate) fn events_of(&self, repository: &str, put: &Put, tag: Option<&str>) -> Vec<Value> {
        let mut events = Vec::new();
        if put.changed {
            events.push(image_action("PUSH", repository, &put.digest, tag, &put.image));
        }
        events.extend(self.scan_pushed(repository, put.digest).unwrap_or_else(|error| {
            tracing::warn!(ecr.repository = repository, "nothing is scanned: {}", chain(&error));
            Vec::new()
        }));
        events
    }

    /// Scans the image that `reference` names, or the images of an index, whatever was scanned before.
    pub(crate) fn rescan(&self, repository: &str, reference: &str) -> Result<Vec<Value>, FindingsError> {
        let digests = self.subjects(repository, reference)?;
        self.scan(repository, &digests, |_, _| true)
    }

    /// One `Inspector2 Finding` event for each finding in an image, or in the images of an index.
    pub(crate) fn finding_events(
        &self,
        repository: &str,
        reference: &str,
        status: FindingStatus,
    ) -> Result<Vec<Value>, FindingsError> {
        let entries = self.findings()?;
        let digests = self.subjects(repository, reference)?;
        Ok(self.read(repository, |repository| {
            let found = |digest: &Digest| Some((*digest, find(&entries, repository, *digest)?));
            let mut events = Vec::new();
            for (digest, entry) in digests.iter().filter_map(found) {
                let findings = entry.findings.iter();
                events.extend(findings.map(|one| scan_events::finding(repository, digest, one, status)));
            }
            events
        })?)
    }

    /// What the scan of an image gave; `None` when it was not scanned.
    pub(crate) fn scan_of(&self, repository: &str, digest: Digest) -> Result<Option<Scan>, FindingsError> {
        if !self.is_scannable(repository, digest)? {
            return Ok(None);
        }
        let entries = self.findings()?;
        let scans_on_push = self.scans_on_push(repository)?;
        Ok(self.read(repository, |repository| {
            let pushed = repository.images.get(&digest)?.pushed_at;
            let ran = repository.scans.get(&digest).copied();
            let completed = ran.or_else(|| scans_on_push.then_some(pushed))?;
            Some(Scan { entry: find(&entries, repository, digest)?.clone(), completed })
        })?)
    }

    /// Whether a scanner takes it: an image, and no index, artifact or attestation.
    pub(crate) fn is_scannable(&self, repository: &str, digest: Digest) -> Result<bool, ImagesError> {
        let Some((_, image)) = self.image(repository, &digest.to_string()) else {
            return Ok(false);
        };
        if image.kind() == Kind::Index
            || image.artifact_media_type.as_deref().is_none_or(|kind| !CONFIGS.contains(&kind))
        {
            return Ok(false);
        }
        let manifest: Value = serde_json::from_slice(&self.manifest_bytes(&digest)?).unwrap_or_default();
        let layers = manifest.get("layers").and_then(Value::as_array);
        let is_layer = |layer: &Value| {
            let kind = layer.get("mediaType").and_then(Value::as_str).unwrap_or_default();
            LAYERS.iter().any(|prefix| kind.starts_with(prefix))
        };
        Ok(layers.is_some_and(|layers| layers.iter().all(is_layer)))
    }

    /// Scans what a put has made complete: the image, or of an index the images that it names now.
    fn scan_pushed(&self, repository: &str, digest: Digest) -> Result<Vec<Value>, FindingsError> {
        if !self.scans_on_push(repository)? {
            return Ok(Vec::new());
        }
        let digests = self.subjects(repository, &digest.to_string())?;
        self.scan(repository, &digests, |repository, digest| !repository.scans.contains_key(digest))
    }

    /// Scans those of `digests` that are `wanted`, and notes it in the same step.
    fn scan(
        &self,
        name: &str,
        digests: &[Digest],
        wanted: impl Fn(&Repository, &Digest) -> bool,
    ) -> Result<Vec<Value>, FindingsError> {
        let entries = self.findings()?;
        let now = clock::now();
        self.update(name, |repository| {
            let mut events = Vec::new();
            for digest in digests {
                if !wanted(repository, digest) {
                    continue;
                }
                if let Some(entry) = find(&entries, repository, *digest) {
                    repository.scans.insert(*digest, now);
                    events.extend(scan_events::ended(repository, *digest, entry));
                }
            }
            Ok(events)
        })
    }

    fn scans_on_push(&self, repository: &str) -> Result<bool, ImagesError> {
        let by_registry = self.scanning().scans_on_push(repository);
        Ok(by_registry || self.read(repository, |repository| repository.settings.scan_on_push)?)
    }

    /// The scannable images that `reference` means: itself, or what an index names, however deep.
    fn subjects(&self, repository: &str, reference: &str) -> Result<Vec<Digest>, FindingsError> {
        let (digest, _) = self.image(repository, reference).ok_or_else(|| FindingsError::NoImage {
            repository: repository.to_owned(),
            reference: reference.to_owned(),
        })?;
        let mut seen = BTreeSet::new();
        let mut left = vec![digest];
        let mut subjects = Vec::new();
        while let Some(digest) = left.pop() {
            if !seen.insert(digest) {
                continue;
            }
            if let Some((_, image)) = self.image(repository, &digest.to_string()) {
                left.extend(image.children.iter().rev());
            }
            if self.is_scannable(repository, digest)? {
                subjects.push(digest);
            }
        }
        Ok(subjects)
    }
}

impl Image {
    fn kind(&self) -> Kind {
        if self.media_type.contains("index") || self.media_type.contains("manifest.list") {
            Kind::Index
        } else {
            Kind::Image
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
