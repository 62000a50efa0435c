//! What import tells: that an upload is in ECR, and that one came to nothing.

use super::{ImportError, Importer};
use crate::notify::{DetailType, ImageDetail, Notice, ReasonDetail, UploadDetail};
use crate::receipt::{ImageReceipt, ImportOutcome, Receipt, UploadId};
use crate::state::image_record::{Teller, Told};

impl Importer {
    /// Tells what `receipt` says, once for each upload: of each of its images, or of the failure.
    pub(super) async fn tell(&self, upload: &UploadId, receipt: &Receipt) -> Result<(), ImportError> {
        match receipt.import.outcome {
            ImportOutcome::Importing | ImportOutcome::Superseded => Ok(()),
            ImportOutcome::Imported => {
                for image in &receipt.import.images {
                    self.tell_imported(upload, image, receipt.import.attempt.n).await?;
                }
                Ok(())
            }
            ImportOutcome::Failed if receipt.import.told => Ok(()),
            ImportOutcome::Failed => {
                self.notifier.tell(&failed(upload, receipt)).await?;
                self.receipts.told(upload).await?;
                Ok(())
            }
        }
    }

    async fn tell_imported(&self, upload: &UploadId, image: &ImageReceipt, n: u32) -> Result<(), ImportError> {
        let notice = imported(upload, image);
        let (fact, now) = (notice.fact.as_str(), (self.now)());
        let mut teller = Teller::Others;
        let (repository, digest) = (&image.repository, image.digest);
        let claim = self.records.update(repository, digest, |record| {
            teller = record.claim_in_delivery(fact, now, n);
        });
        claim.await?;
        match teller {
            Teller::Us => {}
            Teller::Nobody => return Ok(()),
            // Were they to die, nobody would have told it.
            Teller::Others => return Err(ImportError::BeingTold),
        }
        let told = self.notifier.tell(&notice).await;
        let done = told.is_ok();
        let settle = self.records.update(repository, digest, |record| {
            if done {
                record.told.insert(fact.to_owned(), Told { claimed_at: now, done, delivery: Some(n) });
            } else {
                record.told.remove(fact);
            }
        });
        let settled = settle.await;
        told?;
        settled?;
        Ok(())
    }
}

/// `uploads/team/app/1.tar@version`
fn name(upload: &UploadId) -> String {
    format!(
        "{}/{}@{}",
        upload.bucket,
        upload.key,
        upload.version_id.as_deref().or(upload.etag.as_deref()).unwrap_or("")
    )
}

fn detail(upload: &UploadId) -> UploadDetail {
    let UploadId { bucket, key, version_id, .. } = upload.clone();
    UploadDetail { bucket, key, version_id }
}

fn imported(upload: &UploadId, image: &ImageReceipt) -> Notice {
    let repository_uri = image.uri.rsplit_once(':').map_or(image.uri.as_str(), |(uri, _)| uri);
    let about = ImageDetail {
        repository: image.repository.clone(),
        digest: image.digest,
        tags: image.tags.clone(),
        uri: format!("{repository_uri}@{}", image.digest),
        platforms: image.platforms.clone(),
        arn: image.repository_arn.clone(),
    };
    Notice {
        detail_type: DetailType::ImageImported,
        fact: format!("imported:{}@{}:{}", image.repository, image.digest, name(upload)),
        state: "imported",
        needs_a_person: false,
        headline: format!("{} is in ECR", about.name()),
        image: Some(about),
        upload: Some(detail(upload)),
        reason: None,
        verdict: None,
    }
}

/// That `upload` came to nothing, as its receipt says.
pub(crate) fn failed(upload: &UploadId, receipt: &Receipt) -> Notice {
    let reason = receipt.import.reason.as_ref();
    Notice {
        detail_type: DetailType::ImportFailed,
        fact: format!("failed:{}", name(upload)),
        state: "failed",
        needs_a_person: true,
        image: None,
        upload: Some(detail(upload)),
        reason: reason.map(|reason| ReasonDetail::new(reason.kind.as_str(), &reason.text, reason.fix.as_str())),
        verdict: None,
        headline: format!("The upload of {} came to nothing, and nothing was tagged", upload.key),
    }
}
