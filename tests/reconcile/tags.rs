//! Floating tags that point too low.

use pipeline_tests::Pipeline;

use crate::{PROGRAM, reconcile, tarball};

#[tokio::test]
async fn a_floating_tag_that_points_too_low_is_moved() {
    let pipeline = Pipeline::start(PROGRAM).await;
    for (seed, version) in [(1, "1.0.0"), (2, "1.1.0")] {
        pipeline.import(&format!("team/app/{version}.tar"), &tarball(seed)).await;
        pipeline.quiet().await;
    }
    let folder = pipeline.stop().await;
    let setup = pipeline_tests::Setup {
        without: vec!["ImportFunction", "OnPushFunction", "OnScanFunction"],
        folder: Some(folder),
        ..pipeline_tests::Setup::default()
    };
    let pipeline = Pipeline::with(PROGRAM, setup).await;
    let ecr = local::session::ecr_client(pipeline.stack.endpoint());
    let tag = |name: &str| aws_sdk_ecr::types::ImageIdentifier::builder().image_tag(name).build();
    let old = ecr.batch_get_image().repository_name("team/app").image_ids(tag("1.0.0")).send().await.unwrap();
    let manifest = old.images()[0].image_manifest().unwrap();
    let put = || ecr.put_image().repository_name("team/app").image_manifest(manifest).image_tag("latest").send();
    let taken = || ecr.batch_delete_image().repository_name("team/app").image_ids(tag("latest")).send();
    // Somebody has moved it back, and then taken it away; no event tells of it.
    put().await.unwrap();
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags["latest"], tags["1.0.0"]);
    reconcile(&pipeline).await;
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags["latest"], tags["1.1.0"]);
    taken().await.unwrap();
    reconcile(&pipeline).await;
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags["latest"], tags["1.1.0"]);
}
