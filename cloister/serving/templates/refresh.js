// Fetches the page again every few seconds and swaps its contents; a page that is not seen waits.
setInterval(async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.getElementById("page").replaceWith(fresh.getElementById("page"));
  } catch { /* the next look may succeed */ }
}, 3000);
