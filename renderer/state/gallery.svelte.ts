import type { AppEvent } from '../../preload/contract.ts'

/** Everything ever made, as the Gallery shows it. */
export class GalleryState {
  apply(_event: AppEvent): void {}
}
