// The page is whole without this. With it, it stays up to date, copies, and takes files.
"use strict";

const $ = (id) => document.getElementById(id);
const rows = $("rows");
const limit = Number(document.body.dataset.rows);

// What the server made of its data is HTML that it has escaped; a template's content runs nothing by itself.
const parsed = (html) => {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
};

// Makes `old` like `made` and keeps what is the reader's: focus, what is open, what is loaded, a button's answer.
const KEPT = ["open", "hidden"];
const morph = (old, made) => {
  if (old.nodeType !== made.nodeType || old.nodeName !== made.nodeName) {
    old.replaceWith(made);
    reveal(made);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== made.data) old.data = made.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!made.hasAttribute(name) && !KEPT.includes(name)) old.removeAttribute(name);
  }
  for (const { name, value } of [...made.attributes]) {
    if (!KEPT.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.hasAttribute("data-keep") || old.hasAttribute("data-copied")) return;
  const have = [...old.childNodes];
  const want = [...made.childNodes];
  want.forEach((child, at) => {
    if (have[at]) morph(have[at], child);
    else { old.append(child); reveal(child); }
  });
  have.slice(want.length).forEach((child) => child.remove());
};

const reveal = (within) => {
  if (within.nodeType !== Node.ELEMENT_NODE) return;
  const all = [within, ...within.querySelectorAll(".scripted")];
  for (const one of all) {
    if (one.matches(".scripted")) one.hidden = one.matches(".copy") && !navigator.clipboard;
  }
};
reveal(document.body);

// What a row opens, fetched when it is opened and when the row has changed since.
const load = async (story) => {
  const answer = await fetch(story.dataset.story).catch(() => null);
  if (!answer || !answer.ok) return;
  const place = story.querySelector("[data-keep]");
  const template = document.createElement("template");
  template.innerHTML = await answer.text();
  if (place.innerHTML !== template.innerHTML) place.replaceChildren(template.content);
};
document.addEventListener("toggle", (event) => {
  if (event.target.matches?.("details.story") && event.target.open) load(event.target);
}, true);

const show = ({ id, order, key, state, html }) => {
  const made = parsed(html);
  let item = $(`li-${id}`);
  const before = item?.firstElementChild.className;
  if (item) {
    morph(item.firstElementChild, made);
  } else {
    item = document.createElement("li");
    item.id = `li-${id}`;
    item.append(made);
    reveal(item);
  }
  if (Number(item.dataset.order) !== order || !item.isConnected) {
    item.dataset.order = order;
    const next = [...rows.children].find((other) => other !== item && Number(other.dataset.order) < order);
    rows.insertBefore(item, next ?? null);
  }
  if (before !== state) {
    $("said").textContent = `${key} is ${state}`;
    const open = item.querySelector("details.story[open]");
    if (open) load(open);
  }
};

const live = (on) => {
  $("live").className = `live ${on ? "on" : "off"}`;
  $("live").textContent = on ? "live" : "not connected; trying again";
};

const source = new EventSource(`/live?since=${document.body.dataset.revision}`);
source.addEventListener("open", () => live(true));
source.addEventListener("error", () => live(false));
source.addEventListener("message", (event) => {
  const { flow, more, oldest, rows: changed } = JSON.parse(event.data);
  const made = document.createElement("div");
  made.id = "flow";
  made.innerHTML = flow;
  morph($("flow"), made);
  $("more").textContent = more;
  for (const row of changed.reverse()) show(row);
  for (const item of [...rows.children]) {
    if (Number(item.dataset.order) < oldest) item.remove();
  }
  while (rows.children.length > limit) rows.lastElementChild.remove();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button || button.dataset.copied) return;
  const word = button.textContent;
  button.dataset.copied = "yes";
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
    $("said").textContent = "copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => { button.textContent = word; delete button.dataset.copied; }, 1500);
});

// Files go one after the other, straight from the disk.
const drop = $("drop");
let queue = Promise.resolve();
const send = (file, name) => {
  const item = document.createElement("li");
  const label = Object.assign(document.createElement("span"), { className: "name", textContent: name ? `${file.name} as ${name}` : file.name });
  const done = document.createElement("span");
  const bar = Object.assign(document.createElement("progress"), { max: 1, value: 0 });
  bar.setAttribute("aria-label", `Upload of ${file.name}`);
  done.textContent = "waiting";
  item.append(label, done, bar);
  $("sending").append(item);
  queue = queue.then(() => new Promise((over) => {
    const request = new XMLHttpRequest();
    const wrong = (text) => {
      bar.remove();
      done.textContent = "";
      const why = Object.assign(document.createElement("p"), { className: "wrong", textContent: text.trim() });
      why.setAttribute("role", "alert");
      item.append(why);
      over();
    };
    let painted = 0;
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      const now = performance.now();
      if (now - painted < 200 || !total) return;
      painted = now;
      bar.value = loaded / total;
      done.textContent = `${Math.floor((loaded / total) * 100)} %`;
    });
    request.addEventListener("load", () => {
      if (request.status !== 201) return wrong(request.responseText);
      item.remove();
      over();
    });
    request.addEventListener("error", () => wrong("The upload broke off; nothing was kept. Is gantry up still running?"));
    const query = new URLSearchParams({ file: file.name });
    if (name) query.set("as", name);
    request.open("POST", `/uploads?${query}`);
    request.send(file);
  }));
};
const take = (files) => {
  const name = $("as").value.trim();
  for (const file of files) send(file, name);
  // The next file is another image.
  $("as").value = "";
};
$("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files);
});
