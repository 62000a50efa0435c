//! The rules of naming as tables.

use super::*;
use crate::archive::{Blob, Content, DockerImage, Extent};
use crate::image::{Descriptor, Digest, MediaType};

fn image(config: &str, names: &[&str]) -> ArchiveImage {
    let descriptor = Descriptor::new(MediaType::OCI_CONFIG, Digest::of(config.as_bytes()), config.len() as u64);
    let extent = Extent { path: String::new(), offset: 0, size_bytes: 0, magic: None, content: None, hash: None };
    ArchiveImage {
        names: names.iter().filter_map(|name| ArchiveName::parse(name)).collect(),
        content: Content::Docker(Box::new(DockerImage {
            config: Blob { descriptor, extent },
            platform: None,
            layers: vec![],
        })),
    }
}

fn named(key: &str, metadata: Option<&str>, images: &[ArchiveImage]) -> Result<String, NamingError> {
    let upload = Upload { bucket: "uploads", key, image: metadata, prefix: "" };
    let texts = resolve(upload, images)?.into_iter().map(|target| {
        let tags: Vec<&str> = target.tags.iter().map(Tag::as_str).collect();
        format!("{}:{} by {:?}", target.repository, tags.join(","), target.named_by)
    });
    Ok(texts.collect::<Vec<_>>().join(" "))
}

#[test]
fn names_come_from_metadata_then_key_then_archive() {
    let id = format!("id-{}", Digest::of(b"{}").short());
    for (key, metadata, own, wanted) in [
        ("team/app/1.4.2.tar", None, &["app:9"][..], "team/app:1.4.2 by Key".to_owned()),
        ("team/app/1.4.2.tar.gz", None, &[], "team/app:1.4.2 by Key".to_owned()),
        ("team/app/1.4.2.TGZ", None, &[], "team/app:1.4.2 by Key".to_owned()),
        ("team/app/1.4.2", None, &[], "team/app:1.4.2 by Key".to_owned()),
        ("team/v1.tar", None, &[], "team:v1 by Key".to_owned()),
        ("team/app/my-app-1.4.2.tar", None, &["app:1"], "team/app:my-app-1.4.2 by Key".to_owned()),
        ("team/my-app/my-app-1.4.2.tar", None, &["my-app:1"], "team/my-app:1.4.2 by Key".to_owned()),
        ("team/my-app/my-app_2.tar", None, &["x.io/team/my-app:1"], "team/my-app:2 by Key".to_owned()),
        ("team/my-app/my-app.tar", None, &["my-app:7"], "team/my-app:7 by Key".to_owned()),
        ("team/my-app/my-app.tar", None, &[], "team/my-app:my-app by Key".to_owned()),
        ("team/my-apple.tar", None, &["my-app:7"], "team:my-apple by Key".to_owned()),
        ("team/x.tar", Some("team/app:1,latest"), &["b:2"], "team/app:1,latest by Metadata".to_owned()),
        ("team/x.tar", Some("team/app"), &["b:2"], "team/app:2 by Metadata".to_owned()),
        ("team/my-app.tar", Some("team:my-app"), &["my-app:1"], "team:my-app by Metadata".to_owned()),
        ("x.tar", Some("any/app:1"), &[], "any/app:1 by Metadata".to_owned()),
        ("x.tar", None, &["docker.io/library/alpine:3.20"], "alpine:3.20 by Archive".to_owned()),
        ("x.tar", None, &["localhost:5000/a/b:1", "localhost:5000/a/b:2"], "a/b:1,2 by Archive".to_owned()),
        ("x.tar", None, &["localhost/app:1"], "app:1 by Archive".to_owned()),
        ("hello.tar", None, &["1.0"], "hello:1.0 by Archive".to_owned()),
        ("hello.tar", None, &[""], format!("hello:{id} by Archive")),
        ("hello.tar", None, &["team/app"], format!("team/app:{id} by Archive")),
    ] {
        assert_eq!(named(key, metadata, &[image("{}", own)]).unwrap(), wanted, "{key} {metadata:?} {own:?}");
    }
}

#[test]
fn several_images_keep_the_archive_s_names() {
    let images = [image("1", &["team/a:1"]), image("2", &["team/b:1", "team/b:2"]), image("3", &[])];
    let id = Digest::of(b"3").short();
    assert_eq!(
        named("team/all.tar", None, &images).unwrap(),
        format!("team/a:1 by Archive team/b:1,2 by Archive team/all:id-{id} by Archive")
    );
}

#[test]
fn a_prefix_goes_in_front_of_every_name_and_is_not_the_uploader_s_folder() {
    let upload = Upload { bucket: "uploads", key: "team/app/1.tar", image: None, prefix: "imported/" };
    assert_eq!(resolve(upload, &[image("{}", &[])]).unwrap()[0].repository.as_str(), "imported/team/app");
}

#[test]
fn refusals_name_both_sides_and_say_what_to_do() {
    let two = [image("1", &["a/b:1"]), image("2", &["a/b:1"])];
    let one = |names: &[&str]| vec![image("{}", names)];
    for (key, metadata, images, message, fix) in [
        (
            "Team/App/1.tar",
            None,
            one(&[]),
            r#"the key "Team/App/1.tar" names no image that ECR accepts"#,
            "team/app/TAG.tar",
        ),
        ("team/app/1+2.tar", None, one(&[]), "names no image that ECR accepts", "REPOSITORY/1-2.tar"),
        (
            "team/x.tar",
            Some("other/app:1"),
            one(&[]),
            r#"x-amz-meta-image "other/app:1" names the repository other/app, which is not at or below "team", the first folder of the key "team/x.tar""#,
            r#"at or below "team""#,
        ),
        ("team/x.tar", Some("team-b/app:1"), one(&[]), "not at or below", "at or below"),
        (
            "team/all.tar",
            None,
            vec![image("1", &["other/a:1"]), image("2", &["team/b:1"])],
            "the archive names the repository other/a,",
            "at or below",
        ),
        (
            "team/my-app.tar",
            None,
            one(&["my-app:1.4.2"]),
            r#"the key "team/my-app.tar" would make this image team:my-app, but the archive calls it my-app:1.4.2: which one was meant?"#,
            "aws s3 cp FILE s3://uploads/team/my-app/1.4.2.tar   or   aws s3 cp FILE s3://uploads/team/my-app.tar --metadata image=team:my-app",
        ),
        (
            "team/my-app-2.tar",
            None,
            one(&["x.io/z/my-app:1.4.2"]),
            "which one was meant?",
            "s3://uploads/team/my-app/2.tar   or   aws s3 cp FILE s3://uploads/team/my-app-2.tar --metadata image=team:my-app-2",
        ),
        (
            "x.tar",
            Some("a/b:1"),
            two.to_vec(),
            r#"x-amz-meta-image names one image, "a/b:1", and the archive holds 2"#,
            "without that metadata",
        ),
        ("x.tar", None, two.to_vec(), "two images of the archive are both named a/b:1", "a name of its own"),
        ("x.tar", Some("a/b:"), one(&[]), "names no image that ECR accepts", "REPOSITORY/TAG.tar"),
    ] {
        let error = named(key, metadata, &images).unwrap_err();
        assert!(error.to_string().contains(message), "{key}: {error}");
        assert!(error.fix().contains(fix), "{key}: {}", error.fix());
    }
}
