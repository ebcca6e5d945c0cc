// Shows custom widgets as the CloudWatch console does:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_interactivity.html
"use strict";

const FORBIDDEN = "script,iframe,use,object,embed,link,base,meta";
const root = document.documentElement;
const widget = document.getElementById("widget");
const popup = document.getElementById("popup");
const confirmation = document.getElementById("confirmation");
let renderFunction = "";

function describeContext() {
  const offset = -new Date().getTimezoneOffset();
  const parts = [Math.floor(Math.abs(offset) / 60), Math.abs(offset) % 60];
  const iso = (offset < 0 ? "-" : "+") + parts.map(part => String(part).padStart(2, "0")).join(":");
  return {
    dashboardName: "local", widgetId: "widget-1", accountId: "000000000000", locale: navigator.language,
    timezone: {label: "Local", offsetISO: iso, offsetInMinutes: offset}, period: 300, isAutoPeriod: true,
    theme: root.dataset.theme || "light", title: "Modelhaul", params: {}, forms: {all: {}},
    width: widget.clientWidth, height: widget.clientHeight,
  };
}

async function invoke(endpoint, parameters) {
  const response = await fetch("invoke", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({endpoint, event: {...parameters, widgetContext: describeContext()}}),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return JSON.parse(text);
}

// CloudWatch removes what could run code. Here, `data-removed` has the number of removed parts.
function clean(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html").body;
  let removed = 0;
  for (const element of parsed.querySelectorAll(FORBIDDEN)) {
    element.remove();
    removed++;
  }
  for (const element of parsed.querySelectorAll("*")) {
    for (const {name, value} of [...element.attributes]) {
      if (name.startsWith("on") || /^\s*javascript:/i.test(value)) {
        element.removeAttribute(name);
        removed++;
      }
    }
  }
  return [parsed, removed];
}

function display(target, html) {
  const [parsed, removed] = clean(html);
  target.replaceChildren(...parsed.childNodes);
  target.dataset.removed = removed;
  for (const action of target.querySelectorAll("cwdb-action")) {
    const event = action.getAttribute("event") || "click";
    action.previousElementSibling.addEventListener(event, () => act(target, action));
  }
}

async function act(target, action) {
  const question = action.getAttribute("confirmation");
  if (question && !await ask(question)) return;
  let html = action.innerHTML;
  if (action.getAttribute("action") === "call") {
    try {
      html = await invoke(action.getAttribute("endpoint"), JSON.parse(action.textContent));
    } catch (error) {
      html = escapeText(error.message);
    }
  }
  if (action.getAttribute("display") !== "popup") return display(target, html);
  display(popup.firstElementChild, html);
  if (!popup.open) popup.showModal();
}

function ask(question) {
  confirmation.firstElementChild.textContent = question;
  confirmation.returnValue = "no";
  confirmation.showModal();
  return new Promise(resolve => {
    confirmation.addEventListener("close", () => resolve(confirmation.returnValue === "yes"), {once: true});
  });
}

function escapeText(text) {
  const element = document.createElement("p");
  element.textContent = text;
  return element.outerHTML;
}

async function refresh() {
  try {
    if (!renderFunction) renderFunction = (await (await fetch("functions")).json()).render;
    display(widget, await invoke(renderFunction, {}));
  } catch (error) {
    display(widget, escapeText(error.message));
  }
}

function setTheme(theme) {
  root.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light theme" : "Dark theme";
}

document.getElementById("refresh").addEventListener("click", refresh);
document.getElementById("theme").addEventListener("click", () => {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
  refresh();
});
popup.addEventListener("close", refresh);
setInterval(() => {
  if (document.getElementById("automatic").checked && !document.hidden && !popup.open && !confirmation.open) refresh();
}, 5000);
const options = new URLSearchParams(location.search);
setTheme(options.get("theme") === "dark" ? "dark" : "light");
if (options.get("automatic") === "no") document.getElementById("automatic").checked = false;
refresh();
