// The shop works without this. With it, what is chosen from a list applies at once, without a button.
for (const form of document.querySelectorAll("form[data-apply]")) {
  form.querySelector("button").hidden = true;
  form.addEventListener("change", () => form.requestSubmit());
}

// And the page of somebody who is signed in goes when their session does.
const ending = document.querySelector("#ending");
if (ending) {
  const stay = ending.querySelector("button");
  let events;
  // A form of this page may end its session, and its answer says so better.
  let leaving = false;

  const look = async () => {
    // Without a network nothing is known.
    const answer = await fetch("/session/left").catch(() => undefined);
    const session = answer?.ok && (await answer.json().catch(() => undefined));
    if (leaving) return;
    if (answer?.status === 401) {
      location.replace(`/sign-in?next=${encodeURIComponent(location.pathname)}`);
    } else if (session) {
      if (session.user !== ending.dataset.user) location.replace("/account");
      ending.hidden = session.seconds > 120;
    }
  };

  // A browser has few connections for each site, so only pages that are seen hold one.
  const listen = () => {
    events?.close();
    if (document.hidden || leaving) return;
    events = new EventSource("/session/events");
    // The browser connects again by itself, unless the session is not there any more.
    events.onmessage = look;
    events.onerror = () => events.readyState === EventSource.CLOSED && look();
  };

  document.addEventListener("submit", () => {
    leaving = true;
    events?.close();
  });
  // Back from there: the browser may have kept the page as it was.
  addEventListener("pageshow", () => {
    leaving = false;
    listen();
  });
  document.addEventListener("visibilitychange", () => {
    listen();
    if (!document.hidden) look();
  });
  setInterval(look, 60_000);
  stay.addEventListener("click", async () => {
    await fetch("/session/stay", { method: "POST" }).catch(() => undefined);
    await look();
    // Nothing prolongs a session beyond its absolute timeout.
    stay.hidden = !ending.hidden;
  });
}
