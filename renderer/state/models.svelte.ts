import type { AppEvent } from '../../preload/contract.ts'
import type { ModelRecord } from '../../preload/contract/models.ts'

/** The models on this computer. */
export class ModelsState {
  all = $state.raw<ModelRecord[]>([])

  apply(event: AppEvent): void {
    if (event.type === 'models:changed') this.all = event.models
  }
}
