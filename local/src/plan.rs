//! `gantry plan`: what would be imported, without doing it and without a stack.

use std::sync::Arc;

use gantry::archive::USUAL_DELIVERY;
use gantry::disposition::chain;
use gantry::naming::Upload;
use gantry::object::FileSource;
use gantry::plan::{Action, Consumer, ImageView, Plan, PlanError, PlanView, Profile, platform_of};
use indicatif::HumanBytes;

use crate::cli::{CommandError, PlanArgs, StackArgs};
use crate::story::say;
use crate::upload::Named;

pub(crate) async fn run(stack: StackArgs, args: PlanArgs) -> Result<(), CommandError> {
    let parameter = |wanted: &str, usual: &'static str| {
        stack.parameters.iter().find(|(name, _)| name == wanted).map_or(usual, |(_, value)| value)
    };
    let prefix = parameter("RepositoryPrefix", "");
    let named = Named::new(&args.file, args.name.as_deref());
    let upload = Upload { bucket: "uploads", key: &named.key, image: named.image.as_deref(), prefix };
    let plan = async {
        let source = FileSource::open(&args.file).await.map_err(gantry::archive::ArchiveError::from)?;
        let usual = Consumer { profile: Profile::Exact, platform: platform_of("arm64")? };
        let of_stack =
            usual.of_upload(Some(parameter("Profile", "exact")), Some(parameter("Architecture", "arm64")))?;
        let consumer = of_stack.of_upload(args.profile.as_deref(), args.platform.as_deref())?;
        Plan::read(&Arc::new(source), upload, &consumer, USUAL_DELIVERY).await
    };
    let plan = plan.await.map_err(|error: PlanError| CommandError::NotReleased {
        summary: format!("would be refused: {}", chain(&error)),
        next: match &error {
            PlanError::Archive(archive) => archive.fix().to_owned(),
            PlanError::Naming(naming) => naming.fix(),
            PlanError::Profile(profile) => profile.fix(),
        },
    })?;
    let view = plan.view();
    if args.json {
        // Plain records always serialise.
        say(serde_json::to_string_pretty(&view).unwrap_or_default());
    } else {
        tell(&view);
    }
    Ok(())
}

fn tell(plan: &PlanView) {
    let images = if plan.images.len() == 1 { "1 image".to_owned() } else { format!("{} images", plan.images.len()) };
    let around = plan.compressed_with.map(|codec| format!(" compressed with {codec}")).unwrap_or_default();
    say(format!("{}{around}, {}, {images}", plan.layout, HumanBytes(plan.size_bytes)));
    for image in &plan.images {
        let ImageView { repository, tags, named_by, image_id, digest, platforms, blobs } = image;
        let tags: Vec<&str> = tags.iter().map(gantry::image::Tag::as_str).collect();
        let named_by = match named_by {
            gantry::naming::NamedBy::Metadata => "named by --as",
            gantry::naming::NamedBy::Key => "named by the key",
            gantry::naming::NamedBy::Archive => "named by the archive",
        };
        say(format!("{repository}:{} ({named_by})", tags.join(",")));
        say(format!("  image ID  {image_id}"));
        match digest {
            Some(digest) => say(format!("  digest    {digest} (byte for byte)")),
            None => say("  digest    known once the layers are compressed"),
        }
        say(format!("  platform  {}", platforms.join(", ")));
        for blob in blobs {
            let action = match blob.action {
                Action::Compress => "compress and send",
                Action::Recompress => "to gzip, and send",
                Action::Send => "send as it is",
                Action::Leave => "foreign, left",
            };
            say(format!("  {:>12} at {:>12}  {action:17}  {}", blob.size_bytes, blob.offset, blob.entry));
        }
    }
    if let Some(profile) = &plan.profile {
        for change in &profile.changes {
            say(format!("for {}: {change}", profile.name));
        }
    }
    for left_out in &plan.left_out {
        say(format!("left out: {left_out}"));
    }
    say("layers that the registry already has are not read again");
}
