// Before anything is painted, so that nobody is dazzled: the theme chosen last time.
{
  const root = document.documentElement;
  root.dataset.theme = "auto";
  try {
    const kept = localStorage.getItem("edgeinfer-theme");
    if (["light", "dark"].includes(kept)) root.dataset.theme = kept;
  } catch {
    // Who lets no page keep anything chooses anew.
  }
}
