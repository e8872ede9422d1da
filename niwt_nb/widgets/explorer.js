(card => {
  if (!card || card.niwt) return;
  card.niwt = true;
  const all = q => [...card.querySelectorAll(q)];
  const put = (e, name, value) => e.getAttribute(name) === value || e.setAttribute(name, value);
  const tidy = () => {
    all('.noUi-handle').forEach(e => put(e, 'aria-label', e.closest('.widget-slider')?.querySelector('.widget-label')?.textContent || 'value'));
    all('.widget-play button').forEach(e => put(e, 'aria-label', e.querySelector('.fa-stop') ? 'stop' : e.querySelector('.fa-pause') ? 'pause' : 'play'));
    all('.widget-upload').forEach(e => put(e, 'aria-label', 'Upload a picture'));
    all('.widget-toggle-button, .widget-toggle-buttons button').forEach(e => put(e, 'aria-pressed', String(e.classList.contains('mod-active'))));
    all('.niwt-alt').forEach(e => { const picture = e.parentElement.querySelector('img.niwt-panel'); if (picture) { put(picture, 'alt', e.textContent.trim()); put(e, 'aria-hidden', 'true'); } });
    all('a[download]:not([data-done])').forEach(e => { e.dataset.done = 'yes'; e.click(); });
  };
  new MutationObserver(tidy).observe(card, {childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ['class']});
  card.addEventListener('click', event => {
    const picture = event.target.closest('img'), name = [...(picture?.classList || [])].find(c => c.startsWith('niwt-at-'));
    const input = card.querySelector('.niwt-pointer input');
    if (!name || !input) return;
    const box = picture.getBoundingClientRect(), share = (at, from, of) => ((at - from) / of).toFixed(4);
    input.value = [name.slice(8), share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height), Date.now()].join(' ');
    ['input', 'change'].forEach(kind => input.dispatchEvent(new Event(kind, {bubbles: true})));
  });
  tidy();
})(this.closest('.niwt'));
