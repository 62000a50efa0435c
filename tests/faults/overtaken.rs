//! Versions of one key whose imports overlap at a tag that may move: whatever the order of their steps, it ends on the
//! newest version's image.

use std::pin::pin;
use std::time::Duration;

use emulator::faults::{Action, Fault, Hold};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use gantry::import::{Importer, Outcome};
use gantry::naming::IMAGE_METADATA;
use gantry::timeouts::Timeouts;
use pipeline_tests::Uploaded;

use crate::lab::{Elsewhere, Lab, image, tarball};

const DELIVERY: Duration = Duration::from_mins(1);

/// Of those that the template lets move.
const TAG: &str = "latest-dev";

/// One key, its images by number, and who imports them.
struct Key {
    lab: Lab,
    importer: Importer,
    repository: String,
}

impl Key {
    async fn start() -> Self {
        let lab = Lab::start().await;
        let importer = lab.importer(Timeouts::default(), &Elsewhere::default());
        let repository = lab.repository();
        Self { lab, importer, repository }
    }

    async fn put(&self, number: usize) -> Uploaded {
        self.lab.pipeline.put(&format!("{}/{TAG}.tar", self.repository), &tarball(&image(number, 1, 5_000))).await
    }

    async fn deliver(&self, uploaded: &Uploaded) -> Outcome {
        self.lab.deliver(&self.importer, uploaded, 1, DELIVERY).await
    }

    /// Imports a version of which nobody says that it is old.
    async fn import(&self, uploaded: &Uploaded) {
        let outcome = self.deliver(uploaded).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    /// The next time the tag is put.
    fn at_tag(&self, action: fn(Hold) -> Action) -> Hold {
        self.at("registry:PutManifest", &format!("{}/manifests/{TAG}", self.repository), action)
    }

    /// The next such request.
    fn at(&self, operation: &str, resource: &str, action: fn(Hold) -> Action) -> Hold {
        let hold = Hold::new();
        let (operation, resource) = (operation.to_owned(), Some(resource.to_owned()));
        self.lab.pipeline.faults.add(Fault { operation, resource, skip: 0, times: 1, action: action(hold.clone()) });
        hold
    }

    /// A delivery that is about to put the tag, and what it waits for.
    async fn before_tag<'a>(&'a self, uploaded: &'a Uploaded) -> (BoxFuture<'a, Outcome>, Hold) {
        let about_to = self.at_tag(Action::Hold);
        let mut delivery = self.deliver(uploaded).boxed();
        until(&mut delivery, &about_to).await;
        (delivery, about_to)
    }

    /// Which image the tag names.
    fn named(&self, numbers: impl IntoIterator<Item = usize>) -> usize {
        let config = pipeline_tests::look::check_image(self.lab.pipeline.stack.images(), &self.repository, TAG);
        let is_it = |number: &usize| pipeline_tests::look::digest(&image(*number, 1, 5_000).config()) == config;
        numbers.into_iter().find(is_it).expect("one of them")
    }
}

fn is_superseded(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused { receipt, .. } if receipt.state.as_str() == "superseded")
}

/// Goes on with `delivery` until `hold` is reached.
async fn until(delivery: &mut (impl Future<Output = Outcome> + Unpin), hold: &Hold) {
    tokio::select! {
        outcome = delivery => panic!("it should be at its hold: {outcome:?}"),
        () = hold.reached() => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_that_puts_the_tag_last_gives_it_back() {
    let key = Key::start().await;
    let old = key.put(1).await;
    let (older, about_to) = key.before_tag(&old).await;
    let new = key.put(2).await;
    key.import(&new).await;
    assert_eq!(key.named(1..3), 2);
    about_to.release();
    let outcome = older.await;
    assert!(is_superseded(&outcome), "{outcome:?}");
    assert_eq!(key.named(1..3), 2);
    let receipt = key.lab.pipeline.receipt(&new.key).await.expect("a receipt");
    assert_eq!(receipt["upload"]["version_id"], new.version_id.as_str(), "{receipt:#}");
    key.lab.all_is_whole(&key.repository, "in the end");
}

/// The newest need not have put the tag itself: its image may have been there from before.
#[tokio::test(flavor = "multi_thread")]
async fn it_gives_it_back_to_an_image_that_was_there_before() {
    let key = Key::start().await;
    let first = key.put(1).await;
    key.import(&first).await;
    let old = key.put(2).await;
    let (older, about_to) = key.before_tag(&old).await;
    let again = key.put(1).await;
    key.import(&again).await;
    about_to.release();
    let outcome = older.await;
    assert!(is_superseded(&outcome), "{outcome:?}");
    assert_eq!(key.named(1..3), 1);
}

/// The older one looks while nothing says yet what the newest's image is; so the newest looks, too.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_takes_the_tag_back_when_its_receipt_is_written() {
    let key = Key::start().await;
    let old = key.put(1).await;
    let (older, about_to) = key.before_tag(&old).await;
    let new = key.put(2).await;
    let has_put = key.at_tag(Action::HoldAnswer);
    let mut newer = pin!(key.deliver(&new));
    until(&mut newer, &has_put).await;
    about_to.release();
    let outcome = older.await;
    assert!(is_superseded(&outcome), "{outcome:?}");
    assert_eq!(key.named(1..3), 1, "the older one was last");
    has_put.release();
    let outcome = newer.await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    assert_eq!(key.named(1..3), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_that_died_after_it_put_the_tag_gives_it_back_when_it_comes_again() {
    let key = Key::start().await;
    let old = key.put(1).await;
    {
        let (mut older, about_to) = key.before_tag(&old).await;
        let new = key.put(2).await;
        key.import(&new).await;
        let has_put = key.at("s3:HeadObject", &old.key, Action::Hold);
        about_to.release();
        until(&mut older, &has_put).await;
        has_put.release();
    }
    assert_eq!(key.named(1..3), 1, "nobody has looked yet");
    let outcome = key.deliver(&old).await;
    assert!(is_superseded(&outcome), "{outcome:?}");
    assert_eq!(key.named(1..3), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_somebody_else_moved_stays_where_it_is() {
    let key = Key::start().await;
    let [old, new] = [key.put(1).await, key.put(2).await];
    key.import(&new).await;
    let named = format!("{}:{TAG}", key.repository);
    let metadata = [(IMAGE_METADATA, named.as_str())];
    let other = format!("{}/other.tar", key.repository);
    let other = key.lab.pipeline.put_with(&other, &tarball(&image(3, 1, 5_000)), &metadata).await;
    key.import(&other).await;
    assert_eq!(key.named(1..4), 3);
    let outcome = key.deliver(&old).await;
    assert!(is_superseded(&outcome), "{outcome:?}");
    assert_eq!(key.named(1..4), 3);
}
