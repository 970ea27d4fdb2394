// Before anything is painted, so that nobody is dazzled: the theme chosen last time.
document.documentElement.dataset.theme = localStorage.getItem("edgeinfer-theme") || "auto";
