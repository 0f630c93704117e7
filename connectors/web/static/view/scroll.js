// Follows a growing answer, but never against the reader: who scrolls up stays there.

const NEAR_PX = 48;

export class Follower {
  /** `onaway(away)` tells whether the newest line is out of sight. */
  constructor(scroller, content, onaway) {
    this.scroller = scroller;
    this.following = true;
    this.top = 0;
    this.onaway = onaway;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#grown()).observe(content);
    new ResizeObserver(() => this.#grown()).observe(scroller);
  }

  /** Go to the newest line and stay there. */
  jump(smooth = false) {
    this.following = true;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior: smooth && !calm ? "smooth" : "instant" });
    this.onaway(false);
  }

  get #distance() {
    return this.scroller.scrollHeight - this.scroller.clientHeight - this.scroller.scrollTop;
  }

  #scrolled() {
    const { scrollTop } = this.scroller;
    if (this.#distance < NEAR_PX) this.following = true;
    else if (scrollTop < this.top - 2) this.following = false;
    this.top = scrollTop;
    this.onaway(!this.following && this.#distance >= NEAR_PX);
  }

  #grown() {
    if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.onaway(!this.following && this.#distance >= NEAR_PX);
  }
}
